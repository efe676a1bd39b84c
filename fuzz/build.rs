//! Lets the targets find libtorch, where they use it.

fn main() {
    pfc_linking::libtorch();
}

//! Lets binaries and tests of this package find libtorch wherever they are installed.

fn main() {
    pfc_linking::libtorch_behind("pfc-eval", "pfc-eval-torch");
}

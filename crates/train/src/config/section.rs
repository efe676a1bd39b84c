//! Doc comments of the configuration's keys, kept for the program to print.

/// A table of the configuration, with what its doc comments say.
pub trait Section {
    /// The doc comment of the table, a line each.
    const ABOUT: &'static str;
    /// Every key with its doc comment, in the order of the file.
    const KEYS: &'static [(&'static str, &'static str)];
}

/// Declares a struct of the configuration, and gives [`Section`] to it. The doc comment of a key stands
/// before its attributes.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $(#[derive($($derive:tt)*)])*
        $(#[serde($($outer:tt)*)])*
        pub struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $(#[serde($($inner:tt)*)])*
                pub $key:ident: $kind:ty,
            )*
        }
    ) => {
        $(#[doc = $about])*
        $(#[derive($($derive)*)])*
        $(#[serde($($outer)*)])*
        pub struct $name {
            $(
                $(#[doc = $doc])*
                $(#[serde($($inner)*)])*
                pub $key: $kind,
            )*
        }

        impl $crate::config::section::Section for $name {
            const ABOUT: &'static str = concat!($($about, "\n"),*);
            const KEYS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($key), concat!($($doc, "\n"),*))),*];
        }
    };
}

pub(super) use section;

//! The PJRT C API, declared: the table of functions and the argument structures of those ankh
//! calls.
//!
//! A plugin hands out a table whose functions only ever grow at the end, as do the argument
//! structures; each begins with its own size. A plugin refuses a structure shorter than the one it
//! was built with and accepts a longer one, so the newest layout (0.116) is declared here and
//! serves older plugins too. Whether a plugin has a function is told by the size of its table
//! (`Function::offset`).

mod buffer;
mod client;
mod device;
mod event;
mod executable;
mod profiler;
mod table;
mod topology;

pub(crate) use buffer::*;
pub(crate) use client::*;
pub(crate) use device::*;
pub(crate) use event::*;
pub(crate) use executable::*;
pub(crate) use profiler::*;
pub(crate) use table::*;
pub(crate) use topology::*;

/// Declares opaque handles: objects that only the plugin looks into.
macro_rules! opaque {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[repr(C)]
        pub(crate) struct $name {
            _private: [u8; 0],
        }
    )*};
}
pub(crate) use opaque;

/// Declares argument structures: the two common leading fields, the fields given, a zeroed
/// `Default` that knows the structure's size, and the function that takes it.
macro_rules! arguments {
    ($($(#[$doc:meta])* $name:ident for $function:ident { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        pub(crate) struct $name {
            pub struct_size: usize,
            pub extension_start: *mut $crate::sys::ExtensionBase,
            $(pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                // SAFETY: every field is an integer, a raw pointer, an `Option` of a function
                // pointer or a structure of these, for all of which zero bytes are a value.
                let zeroed: Self = unsafe { std::mem::zeroed() };
                Self { struct_size: size_of::<Self>(), ..zeroed }
            }
        }

        // SAFETY: the structure is the one the named function of the C API takes.
        unsafe impl $crate::sys::Arguments for $name {
            const FUNCTION: $crate::sys::Function = $crate::sys::Function::$function;
        }
    )*};
}
pub(crate) use arguments;

/// The argument structure of one function of the table.
///
/// # Safety
///
/// `FUNCTION` takes a pointer to this structure and returns a `PJRT_Error*`.
pub(crate) unsafe trait Arguments {
    /// The function that takes this structure.
    const FUNCTION: Function;
}

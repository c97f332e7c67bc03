//! Errors, named values, the plugin itself and events.

use std::ffi::{c_char, c_int, c_void};

use super::{arguments, opaque};

opaque! {
    /// An error; whoever receives one destroys it.
    Error,
    /// Something that becomes ready later.
    Event,
}

/// The arguments of `PJRT_Error_Destroy`, which returns nothing.
#[repr(C)]
pub(crate) struct ErrorDestroyArgs {
    pub struct_size: usize,
    pub extension_start: *mut super::ExtensionBase,
    pub error: *mut Error,
}

/// The arguments of `PJRT_Error_Message`, which returns nothing.
#[repr(C)]
pub(crate) struct ErrorMessageArgs {
    pub struct_size: usize,
    pub extension_start: *mut super::ExtensionBase,
    pub error: *const Error,
    pub message: *const c_char,
    pub message_size: usize,
}

/// The value of a [`NamedValue`]; its `kind` says which field holds.
#[repr(C)]
pub(crate) union NamedValueContent {
    pub string: *const c_char,
    pub int: i64,
    pub int_list: *const i64,
    pub float: f32,
    /// A C `bool`; any byte but 0 is true.
    pub boolean: u8,
}

/// Kinds of [`NamedValue`].
pub(crate) const NAMED_VALUE_STRING: c_int = 0;
pub(crate) const NAMED_VALUE_INT: c_int = 1;
pub(crate) const NAMED_VALUE_INT_LIST: c_int = 2;
pub(crate) const NAMED_VALUE_FLOAT: c_int = 3;
pub(crate) const NAMED_VALUE_BOOL: c_int = 4;

/// A name with a value. A plugin's own may be longer: in an array the next one follows after
/// `struct_size` bytes, filled up to the alignment.
#[repr(C)]
pub(crate) struct NamedValue {
    pub struct_size: usize,
    pub extension_start: *mut super::ExtensionBase,
    pub name: *const c_char,
    pub name_size: usize,
    pub kind: c_int,
    pub content: NamedValueContent,
    /// The length of a string or list, 1 otherwise.
    pub value_size: usize,
}

/// Called once an event is ready; owns the error, if there is one.
pub(crate) type OnReady = unsafe extern "C" fn(error: *mut Error, user_arg: *mut c_void);

arguments! {
    ErrorGetCodeArgs for ErrorGetCode {
        error: *const Error,
        code: c_int,
    }
    PluginInitializeArgs for PluginInitialize {}
    PluginAttributesArgs for PluginAttributes {
        attributes: *const NamedValue,
        num_attributes: usize,
    }
    EventDestroyArgs for EventDestroy {
        event: *mut Event,
    }
    EventOnReadyArgs for EventOnReady {
        event: *mut Event,
        callback: Option<OnReady>,
        user_arg: *mut c_void,
    }
}

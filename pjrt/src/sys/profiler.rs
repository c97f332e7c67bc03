//! Extensions: what a plugin offers beside its table. They form a list, each beginning with its
//! size and its kind. ankh uses the profiler's, which has a table of its own.

use std::ffi::{c_char, c_int, c_void};

use super::opaque;

/// The head of each extension.
#[repr(C)]
pub(crate) struct ExtensionBase {
    pub struct_size: usize,
    pub kind: c_int,
    pub next: *mut ExtensionBase,
}

/// The kind of the profiler's extension.
pub(crate) const PROFILER_EXTENSION: c_int = 1;

/// The profiler's extension; newer ones go on behind this.
#[repr(C)]
pub(crate) struct ProfilerExtension {
    pub base: ExtensionBase,
    /// Null where there is no profiler.
    pub api: *const ProfilerApi,
}

opaque! {
    /// A profiler.
    Profiler,
    /// An error of a profiler; whoever receives one destroys it.
    ProfilerError,
}

/// A function that takes these arguments.
pub(crate) type ProfilerFunction<A> = Option<unsafe extern "C" fn(*mut A) -> *mut ProfilerError>;

/// The functions of the profiler; newer tables go on behind these.
#[repr(C)]
pub(crate) struct ProfilerApi {
    pub struct_size: usize,
    pub private: *mut c_void,
    pub error_destroy: Option<unsafe extern "C" fn(*mut ProfilerErrorDestroyArgs)>,
    pub error_message: Option<unsafe extern "C" fn(*mut ProfilerErrorMessageArgs)>,
    pub error_get_code: ProfilerFunction<ProfilerErrorGetCodeArgs>,
    pub create: ProfilerFunction<ProfilerCreateArgs>,
    pub destroy: ProfilerFunction<ProfilerArgs>,
    pub start: ProfilerFunction<ProfilerArgs>,
    pub stop: ProfilerFunction<ProfilerArgs>,
    pub collect_data: ProfilerFunction<ProfilerCollectDataArgs>,
}

#[repr(C)]
pub(crate) struct ProfilerErrorDestroyArgs {
    pub struct_size: usize,
    pub private: *mut c_void,
    pub error: *mut ProfilerError,
}

#[repr(C)]
pub(crate) struct ProfilerErrorMessageArgs {
    pub struct_size: usize,
    pub private: *mut c_void,
    pub error: *mut ProfilerError,
    pub message: *const c_char,
    pub message_size: usize,
}

#[repr(C)]
pub(crate) struct ProfilerErrorGetCodeArgs {
    pub struct_size: usize,
    pub private: *mut c_void,
    pub error: *mut ProfilerError,
    pub code: c_int,
}

#[repr(C)]
pub(crate) struct ProfilerCreateArgs {
    pub struct_size: usize,
    /// An encoded `tensorflow.ProfileOptions`.
    pub options: *const c_char,
    pub options_size: usize,
    pub profiler: *mut Profiler,
}

/// The arguments of those that start, stop and destroy.
#[repr(C)]
pub(crate) struct ProfilerArgs {
    pub struct_size: usize,
    pub profiler: *mut Profiler,
}

#[repr(C)]
pub(crate) struct ProfilerCollectDataArgs {
    pub struct_size: usize,
    pub profiler: *mut Profiler,
    /// Null asks for the size, and where the plugin keeps the bytes also for those: they are its
    /// own until the profiler is destroyed.
    pub buffer: *mut u8,
    pub buffer_size: usize,
}

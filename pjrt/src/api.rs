//! The table of a loaded plugin, and the one place where its functions are called.

use std::ffi::{c_char, c_int};
use std::mem;
use std::path::PathBuf;
use std::ptr::{self, NonNull};

use crate::error::{Error, Result};
use crate::sys::{self, Arguments, Function};

/// The major version of the C API that this crate speaks.
const MAJOR_VERSION: i32 = 0;

/// The table of a loaded plugin.
#[derive(Debug)]
pub(crate) struct Api {
    table: NonNull<sys::ApiHeader>,
    path: PathBuf,
}

// SAFETY: the table is constant for the life of the process, and the C API may be called from any
// thread.
unsafe impl Send for Api {}
// SAFETY: as above.
unsafe impl Sync for Api {}

impl Api {
    /// Takes the table a plugin handed out.
    ///
    /// # Safety
    ///
    /// `table` is null or a `PJRT_Api` that stays valid for the life of the process.
    pub unsafe fn new(table: *const sys::ApiHeader, path: PathBuf) -> Result<Self> {
        let Some(table) = NonNull::new(table.cast_mut()) else {
            return Err(Error::NotAPlugin {
                path,
                reason: "GetPjrtApi gives no table".to_owned(),
            });
        };
        // SAFETY: every table begins with its size.
        let size = unsafe { (&raw const (*table.as_ptr()).struct_size).read() };
        if size < size_of::<sys::ApiHeader>() {
            let reason = format!(
                "its table has {size} bytes, and the version alone takes {}",
                size_of::<sys::ApiHeader>()
            );
            return Err(Error::NotAPlugin { path, reason });
        }
        let api = Self { table, path };
        // SAFETY: the table's own size says that it holds the version.
        let size = unsafe { api.table.as_ref().version.struct_size };
        if size > size_of::<sys::ApiVersion>() {
            // Where the functions begin would be a guess.
            let reason = format!(
                "its version takes {size} bytes, where {} were expected",
                size_of::<sys::ApiVersion>()
            );
            return Err(Error::NotAPlugin {
                path: api.path,
                reason,
            });
        }
        let (major, minor) = api.version();
        if major != MAJOR_VERSION {
            return Err(Error::UnsupportedVersion {
                path: api.path,
                major,
                minor,
                expected_major: MAJOR_VERSION,
            });
        }
        Ok(api)
    }

    /// The plugin's file.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// The version the plugin was built with.
    pub fn version(&self) -> (i32, i32) {
        // SAFETY: `new` was given a valid table and found that it holds this header.
        let version = unsafe { &self.table.as_ref().version };
        (version.major, version.minor)
    }

    /// The profiler's functions, if the plugin has a profiler that this crate can use.
    pub fn profiler(&self) -> Option<&'static sys::ProfilerApi> {
        // SAFETY: `new` was given a valid table; its list of extensions is valid as long.
        let mut next = unsafe { self.table.as_ref().extension_start };
        while !next.is_null() {
            // SAFETY: each extension begins with this head, and names the next one or null.
            let head = unsafe { &*next };
            let size = head.struct_size;
            if head.kind == sys::PROFILER_EXTENSION && size >= size_of::<sys::ProfilerExtension>() {
                // SAFETY: the extension's own kind and size say that it is this structure.
                let api = unsafe { (*next.cast::<sys::ProfilerExtension>()).api };
                // SAFETY: the table is null, or begins with its size and stays as long as the
                // plugin does, which is never unloaded.
                let size = (!api.is_null()).then(|| unsafe { (*api).struct_size })?;
                let is_whole = size >= size_of::<sys::ProfilerApi>();
                // SAFETY: as above; its own size says that it holds these functions.
                return is_whole.then(|| unsafe { &*api });
            }
            next = head.next;
        }
        None
    }

    /// The address of a function, if the table reaches that far and holds one.
    fn function(&self, function: Function) -> Result<NonNull<u8>> {
        let missing = || Error::MissingFunction {
            function: function.name(),
            version: self.version(),
            path: self.path.clone(),
        };
        // SAFETY: `new` was given a valid table.
        let table_size = unsafe { self.table.as_ref().struct_size };
        let offset = function.offset();
        if offset + size_of::<usize>() > table_size {
            return Err(missing());
        }
        // SAFETY: the table's own size says that it holds a function pointer at this offset.
        let pointer = unsafe { self.table.byte_add(offset).cast::<*mut u8>().read() };
        NonNull::new(pointer).ok_or_else(missing)
    }

    /// Calls the function that takes these arguments.
    ///
    /// # Safety
    ///
    /// The pointers among the arguments are what the function asks for: live handles of this
    /// plugin, or memory of the size given beside them.
    pub unsafe fn call<A: Arguments>(&self, arguments: &mut A) -> Result<()> {
        let function = self.function(A::FUNCTION)?;
        // SAFETY: `Arguments` promises this signature of the function, and `function` found it in
        // the table.
        let function: unsafe extern "C" fn(*mut A) -> *mut sys::Error =
            unsafe { mem::transmute(function) };
        // SAFETY: `arguments` is a whole structure with its size in it; its pointers are the
        // caller's promise.
        let error = unsafe { function(arguments) };
        // SAFETY: the call has just returned this error to us.
        unsafe { self.take_error(error, A::FUNCTION.name()) }
    }

    /// Turns an error of the plugin, or null, into a result, and destroys it.
    ///
    /// # Safety
    ///
    /// `error` is null or an error of this plugin which the caller owns.
    pub unsafe fn take_error(&self, error: *mut sys::Error, function: &'static str) -> Result<()> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: `error` is live; its message is copied before it is destroyed.
        let (code, message) = unsafe { (self.error_code(error), self.error_message(error)) };
        if let Ok(destroy) = self.function(Function::ErrorDestroy) {
            let mut arguments = sys::ErrorDestroyArgs {
                struct_size: size_of::<sys::ErrorDestroyArgs>(),
                extension_start: ptr::null_mut(),
                error,
            };
            // SAFETY: this is the signature of `PJRT_Error_Destroy`, and the error is ours to
            // destroy.
            unsafe {
                let destroy: unsafe extern "C" fn(*mut sys::ErrorDestroyArgs) =
                    mem::transmute(destroy);
                destroy(&mut arguments);
            }
        }
        Err(Error::from_plugin(function, code, message))
    }

    /// # Safety
    ///
    /// `error` is a live error of this plugin.
    unsafe fn error_code(&self, error: *const sys::Error) -> c_int {
        const UNKNOWN: c_int = 2;
        let Ok(function) = self.function(Function::ErrorGetCode) else {
            return UNKNOWN;
        };
        let mut arguments = sys::ErrorGetCodeArgs {
            error,
            ..Default::default()
        };
        // SAFETY: this is the signature of `PJRT_Error_GetCode`; the error is live.
        let failure = unsafe {
            let function: unsafe extern "C" fn(*mut sys::ErrorGetCodeArgs) -> *mut sys::Error =
                mem::transmute(function);
            function(&mut arguments)
        };
        // An error about an error says nothing more; it is left alone rather than followed without
        // end.
        if failure.is_null() {
            arguments.code
        } else {
            UNKNOWN
        }
    }

    /// # Safety
    ///
    /// `error` is a live error of this plugin.
    unsafe fn error_message(&self, error: *const sys::Error) -> String {
        let Ok(function) = self.function(Function::ErrorMessage) else {
            return String::new();
        };
        let mut arguments = sys::ErrorMessageArgs {
            struct_size: size_of::<sys::ErrorMessageArgs>(),
            extension_start: ptr::null_mut(),
            error,
            message: ptr::null(),
            message_size: 0,
        };
        // SAFETY: this is the signature of `PJRT_Error_Message`, and the message it gives lives as
        // long as the error.
        unsafe {
            let function: unsafe extern "C" fn(*mut sys::ErrorMessageArgs) =
                mem::transmute(function);
            function(&mut arguments);
            string(arguments.message, arguments.message_size)
        }
    }
}

/// Copies a string of the plugin.
///
/// # Safety
///
/// `text` is null or has `size` readable bytes.
pub(crate) unsafe fn string(text: *const c_char, size: usize) -> String {
    // SAFETY: the caller's promise.
    let bytes = unsafe { slice(text.cast::<u8>(), size) };
    String::from_utf8_lossy(bytes).into_owned()
}

/// Views an array of the plugin, which may be null where it is empty.
///
/// # Safety
///
/// `data` is null or has `length` readable elements that outlive `'a`.
pub(crate) unsafe fn slice<'a, T>(data: *const T, length: usize) -> &'a [T] {
    if data.is_null() || length == 0 {
        return &[];
    }
    // SAFETY: the caller's promise; null was dealt with.
    unsafe { std::slice::from_raw_parts(data, length) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::keep;
    use crate::platform::Platform;
    use crate::plugin::Plugin;

    /// A table of an old plugin: its size ends after a few functions.
    #[repr(C)]
    struct ShortTable {
        header: sys::ApiHeader,
        functions: [usize; 3],
    }

    fn short_table(major: c_int) -> &'static ShortTable {
        keep(Box::new(ShortTable {
            header: sys::ApiHeader {
                struct_size: size_of::<ShortTable>(),
                extension_start: ptr::null_mut(),
                version: sys::ApiVersion {
                    struct_size: size_of::<sys::ApiVersion>(),
                    extension_start: ptr::null_mut(),
                    major,
                    minor: 1,
                },
            },
            functions: [0; 3],
        }))
    }

    fn api(major: c_int) -> Result<Api> {
        // SAFETY: the table is leaked, so it lives as long as the process.
        unsafe { Api::new(&short_table(major).header, PathBuf::from("old.so")) }
    }

    #[test]
    fn a_function_beyond_the_table_is_missing() {
        let api = api(0).unwrap();
        let mut arguments = sys::PluginInitializeArgs::default();
        // SAFETY: the arguments hold no pointers, and the function is never reached.
        let error = unsafe { api.call(&mut arguments) }.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the plugin old.so (PJRT C API 0.1) has no PJRT_Plugin_Initialize"
        );
    }

    #[test]
    fn a_null_function_is_missing() {
        let api = api(0).unwrap();
        let error = api.function(Function::ErrorMessage).unwrap_err();
        assert!(matches!(error, Error::MissingFunction { .. }), "{error:?}");
    }

    #[test]
    fn another_major_version_is_refused() {
        let error = api(1).unwrap_err();
        assert!(
            matches!(error, Error::UnsupportedVersion { major: 1, .. }),
            "{error:?}"
        );
    }

    #[test]
    fn an_argument_structure_too_short_for_the_plugin_is_told_so() {
        let plugin = Plugin::find(Platform::Cpu, None).expect("the tests need the CPU plugin");
        let mut arguments = sys::PluginAttributesArgs {
            struct_size: size_of::<sys::PluginAttributesArgs>() - 8,
            ..Default::default()
        };
        // SAFETY: the structure is in truth as long as the function asks, and holds no input
        // pointers.
        let error = unsafe { plugin.api().call(&mut arguments) }.unwrap_err();
        assert_eq!(
            error.to_string(),
            "PJRT_Plugin_Attributes: the plugin is newer than these bindings: it expects \
             PJRT_Plugin_Attributes_Args of 32 bytes and was given 24; use an older plugin or a newer ankh"
        );
    }

    #[test]
    fn a_table_or_version_of_another_size_is_no_plugin() {
        let error = |table: &mut ShortTable| {
            // SAFETY: the table outlives the look at its header; no function is called.
            let api = unsafe { Api::new(&table.header, PathBuf::from("odd.so")) };
            api.unwrap_err().to_string()
        };
        let table = || ShortTable {
            header: sys::ApiHeader {
                version: sys::ApiVersion {
                    struct_size: size_of::<sys::ApiVersion>(),
                    ..short_table(0).header.version
                },
                ..short_table(0).header
            },
            functions: [0; 3],
        };
        let mut short = table();
        short.header.struct_size = 16;
        assert_eq!(
            error(&mut short),
            "odd.so is not a PJRT plugin: its table has 16 bytes, and the version alone takes 40"
        );
        let mut long = table();
        long.header.version.struct_size = 32;
        assert_eq!(
            error(&mut long),
            "odd.so is not a PJRT plugin: its version takes 32 bytes, where 24 were expected"
        );
    }

    #[test]
    fn a_null_table_is_no_plugin() {
        // SAFETY: null is allowed.
        let error = unsafe { Api::new(ptr::null(), PathBuf::from("empty.so")) }.unwrap_err();
        assert!(matches!(error, Error::NotAPlugin { .. }), "{error:?}");
    }
}

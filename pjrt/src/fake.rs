//! Plugins made up for tests: tables with the functions that a test gives, so that it can say what
//! a plugin does.

use std::path::PathBuf;
use std::ptr::{self, NonNull};
use std::sync::Mutex;

use crate::api::Api;
use crate::plugin::Plugin;
use crate::sys::{self, Arguments, Function};

/// More functions than the newest table has.
const ROOM: usize = 256;

#[repr(C)]
struct Table {
    header: sys::ApiHeader,
    functions: [usize; ROOM],
}

/// A table under construction.
pub(crate) struct Fake {
    table: Box<Table>,
}

impl Fake {
    /// A table without functions.
    pub fn new() -> Self {
        let header = sys::ApiHeader {
            struct_size: size_of::<Table>(),
            extension_start: ptr::null_mut(),
            version: sys::ApiVersion {
                struct_size: size_of::<sys::ApiVersion>(),
                extension_start: ptr::null_mut(),
                major: 0,
                minor: 116,
            },
        };
        let functions = [0; ROOM];
        Self {
            table: Box::new(Table { header, functions }),
        }
    }

    /// A table that opens a client.
    pub fn with_client() -> Self {
        Self::new().with(create_client).with(destroy_client)
    }

    /// Puts in the function that takes these arguments.
    pub fn with<A: Arguments>(
        mut self,
        function: unsafe extern "C" fn(*mut A) -> *mut sys::Error,
    ) -> Self {
        let index = (A::FUNCTION.offset() - Function::ErrorDestroy.offset()) / size_of::<usize>();
        self.table.functions[index] = function as usize;
        self
    }

    /// Puts an extension in, which stays for the life of the process.
    pub fn with_extension(mut self, extension: &'static sys::ExtensionBase) -> Self {
        self.table.header.extension_start = ptr::from_ref(extension).cast_mut();
        self
    }

    /// The plugin, whose table stays for the life of the process.
    pub fn plugin(self) -> Plugin {
        let table = keep(self.table);
        // SAFETY: the table is leaked, so that it lives as long as the process, and its functions
        // have their signatures.
        let api = unsafe { Api::new(&raw const table.header, PathBuf::from("fake.so")) };
        Plugin::of(api.expect("the header is that of a plugin"))
    }
}

unsafe extern "C" fn create_client(arguments: *mut sys::ClientCreateArgs) -> *mut sys::Error {
    // SAFETY: the caller gives live arguments.
    unsafe { (*arguments).client = NonNull::dangling().as_ptr() };
    ptr::null_mut()
}

unsafe extern "C" fn destroy_client(_: *mut sys::ClientDestroyArgs) -> *mut sys::Error {
    ptr::null_mut()
}

/// Keeps a table for the life of the process, where whoever looks for leaks finds it.
pub(crate) fn keep<T>(table: Box<T>) -> &'static T {
    static KEPT: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let table: &'static T = Box::leak(table);
    KEPT.lock().unwrap().push(ptr::from_ref(table).addr());
    table
}

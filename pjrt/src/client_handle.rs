//! The handle of a client, which whatever belongs to the client shares.

use crate::plugin::Plugin;
use crate::sys;

/// The plugin's client, destroyed on drop. Whatever belongs to a client holds one.
pub(crate) struct ClientHandle {
    raw: *mut sys::Client,
    plugin: Plugin,
}

// SAFETY: the C API's clients may be used from any thread.
unsafe impl Send for ClientHandle {}
// SAFETY: as above.
unsafe impl Sync for ClientHandle {}

impl ClientHandle {
    /// Takes over a client.
    ///
    /// # Safety
    ///
    /// `raw` is a live client of the plugin that the caller owns.
    pub unsafe fn new(raw: *mut sys::Client, plugin: Plugin) -> Self {
        Self { raw, plugin }
    }

    pub fn raw(&self) -> *mut sys::Client {
        self.raw
    }

    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }
}

impl Drop for ClientHandle {
    fn drop(&mut self) {
        let mut arguments = sys::ClientDestroyArgs {
            client: self.raw,
            ..Default::default()
        };
        // SAFETY: the client is ours and nothing that belongs to it is left, since all of that
        // holds this handle. A failure leaves nothing to do.
        let _ = unsafe { self.plugin.api().call(&mut arguments) };
    }
}

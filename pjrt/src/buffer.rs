//! Buffers: arrays on a device.

use std::fmt;
use std::ptr;
use std::sync::Arc;

use crate::api::{Api, slice};
use crate::client_handle::ClientHandle;
use crate::element_type::ElementType;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::host_tensor::{HostTensor, byte_length};
use crate::sys;

/// An array on a device, freed on drop (the device keeps it as long as running programs need it).
///
/// A buffer may be one whose content is still being computed; reading it waits. If the computation
/// fails, so does reading.
pub struct Buffer {
    client: Arc<ClientHandle>,
    raw: *mut sys::Buffer,
    element_type: ElementType,
    dims: Vec<i64>,
}

// SAFETY: the C API's buffers may be used from any thread.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Takes over a buffer, also if this fails.
    ///
    /// # Safety
    ///
    /// `raw` is a live buffer of the client that the caller owns.
    pub(crate) unsafe fn new(client: Arc<ClientHandle>, raw: *mut sys::Buffer) -> Result<Self> {
        let mut this = Self {
            client,
            raw,
            element_type: ElementType::Pred,
            dims: Vec::new(),
        };
        let mut element_type = sys::BufferElementTypeArgs {
            buffer: raw,
            ..Default::default()
        };
        let mut dims = sys::BufferDimensionsArgs {
            buffer: raw,
            ..Default::default()
        };
        // SAFETY: the buffer is live, and its dimensions live as long as it.
        unsafe {
            this.api().call(&mut element_type)?;
            this.api().call(&mut dims)?;
            this.dims = slice(dims.dims, dims.num_dims).to_vec();
        }
        this.element_type = ElementType::from_raw(element_type.element_type)
            .ok_or(Error::UnsupportedElementType(element_type.element_type))?;
        Ok(this)
    }

    pub(crate) fn raw(&self) -> *mut sys::Buffer {
        self.raw
    }

    pub(crate) fn belongs_to(&self, client: &Arc<ClientHandle>) -> bool {
        Arc::ptr_eq(&self.client, client)
    }

    /// The type of the elements.
    pub fn element_type(&self) -> ElementType {
        self.element_type
    }

    /// The dimensions.
    pub fn dims(&self) -> &[i64] {
        &self.dims
    }

    /// The bytes the buffer takes on its device, with the device's own padding.
    pub fn device_bytes(&self) -> Result<usize> {
        let mut arguments = sys::BufferOnDeviceSizeInBytesArgs {
            buffer: self.raw,
            ..Default::default()
        };
        // SAFETY: the buffer is live.
        unsafe { self.api().call(&mut arguments) }?;
        Ok(arguments.bytes)
    }

    /// Becomes ready with the buffer's content, or with the error of what was to compute it.
    pub fn ready(&self) -> Result<Event> {
        let mut arguments = sys::BufferReadyEventArgs {
            buffer: self.raw,
            ..Default::default()
        };
        // SAFETY: the buffer is live, and the event is given to us.
        unsafe {
            self.api().call(&mut arguments)?;
            Event::watch(
                Arc::clone(&self.client),
                arguments.event,
                "PJRT_Buffer_ReadyEvent",
                (),
            )
        }
    }

    /// Copies the content to the host, waiting for it.
    pub fn to_host(&self) -> Result<HostTensor> {
        self.to_host_async()?.wait()
    }

    /// Begins to copy the content to the host. The buffer may be dropped meanwhile.
    pub fn to_host_async(&self) -> Result<Event<HostTensor>> {
        let length =
            byte_length(self.element_type, &self.dims).ok_or_else(|| Error::TensorSize {
                element_type: self.element_type,
                dims: self.dims.clone(),
                expected: None,
                found: 0,
            })?;
        let mut tensor = HostTensor {
            element_type: self.element_type,
            dims: self.dims.clone(),
            bytes: vec![0; length],
        };
        let minor_to_major: Vec<i64> = (0..self.dims.len() as i64).rev().collect();
        let mut layout = row_major(&minor_to_major);
        let mut arguments = sys::BufferToHostBufferArgs {
            source: self.raw,
            host_layout: &mut layout,
            destination: tensor.bytes.as_mut_ptr().cast(),
            destination_size: length,
            ..Default::default()
        };
        // SAFETY: the buffer is live and the destination has the size given, which is that of the
        // buffer's dense content. The vector moves into the event, which keeps its heap memory in
        // place until the copy is done.
        unsafe {
            self.api().call(&mut arguments)?;
            Event::watch(
                Arc::clone(&self.client),
                arguments.event,
                "PJRT_Buffer_ToHostBuffer",
                tensor,
            )
        }
    }

    fn api(&self) -> &Api {
        self.client.plugin().api()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut arguments = sys::BufferDestroyArgs {
            buffer: self.raw,
            ..Default::default()
        };
        // SAFETY: the buffer is ours and destroyed once. A failure leaves nothing to do.
        let _ = unsafe { self.api().call(&mut arguments) };
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({}{:?})", self.element_type, self.dims)
    }
}

/// The dense layout with the last dimension varying fastest.
fn row_major(minor_to_major: &[i64]) -> sys::MemoryLayout {
    sys::MemoryLayout {
        struct_size: size_of::<sys::MemoryLayout>(),
        extension_start: ptr::null_mut(),
        content: sys::LayoutContent {
            tiled: sys::TiledLayout {
                struct_size: size_of::<sys::TiledLayout>(),
                extension_start: ptr::null_mut(),
                minor_to_major: minor_to_major.as_ptr(),
                minor_to_major_size: minor_to_major.len(),
                tile_dims: ptr::null(),
                tile_dim_sizes: ptr::null(),
                num_tiles: 0,
            },
        },
        kind: sys::LAYOUT_TILED,
    }
}

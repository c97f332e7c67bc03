//! Buffers: arrays on a device.

use std::ffi::{c_int, c_void};

use super::{Event, arguments, opaque};

opaque! {
    /// An array on a device.
    Buffer,
}

/// A layout given by the order of dimensions and, on a device, tiles.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct TiledLayout {
    pub struct_size: usize,
    pub extension_start: *mut super::ExtensionBase,
    pub minor_to_major: *const i64,
    pub minor_to_major_size: usize,
    pub tile_dims: *const i64,
    pub tile_dim_sizes: *const usize,
    pub num_tiles: usize,
}

/// A layout given by strides.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct StridedLayout {
    pub struct_size: usize,
    pub extension_start: *mut super::ExtensionBase,
    pub byte_strides: *const i64,
    pub num_byte_strides: usize,
}

/// Either form of a layout.
#[repr(C)]
pub(crate) union LayoutContent {
    pub tiled: TiledLayout,
    pub strides: StridedLayout,
}

/// `MemoryLayout::kind` of a tiled layout.
pub(crate) const LAYOUT_TILED: c_int = 0;

/// How an array lies in memory.
#[repr(C)]
pub(crate) struct MemoryLayout {
    pub struct_size: usize,
    pub extension_start: *mut super::ExtensionBase,
    pub content: LayoutContent,
    pub kind: c_int,
}

arguments! {
    BufferDestroyArgs for BufferDestroy {
        buffer: *mut Buffer,
    }
    BufferElementTypeArgs for BufferElementType {
        buffer: *mut Buffer,
        element_type: c_int,
    }
    BufferDimensionsArgs for BufferDimensions {
        buffer: *mut Buffer,
        dims: *const i64,
        num_dims: usize,
    }
    BufferOnDeviceSizeInBytesArgs for BufferOnDeviceSizeInBytes {
        buffer: *mut Buffer,
        bytes: usize,
    }
    BufferReadyEventArgs for BufferReadyEvent {
        buffer: *mut Buffer,
        event: *mut Event,
    }
    BufferToHostBufferArgs for BufferToHostBuffer {
        source: *mut Buffer,
        host_layout: *mut MemoryLayout,
        destination: *mut c_void,
        destination_size: usize,
        event: *mut Event,
    }
}

//! The table of functions: its head, and the functions in the order in which their pointers follow.

use std::ffi::c_int;

use super::ExtensionBase;

/// The version a plugin was built with.
#[repr(C)]
pub(crate) struct ApiVersion {
    pub struct_size: usize,
    pub extension_start: *mut ExtensionBase,
    pub major: c_int,
    pub minor: c_int,
}

/// What precedes the function pointers.
#[repr(C)]
pub(crate) struct ApiHeader {
    pub struct_size: usize,
    pub extension_start: *mut ExtensionBase,
    pub version: ApiVersion,
}

/// Declares the functions in table order, with their names in C.
macro_rules! functions {
    ($($function:ident = $name:literal,)*) => {
        /// The functions of the C API, in the order of the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(dead_code, reason = "the order is the layout, so functions that ankh does not call are listed too")]
        pub(crate) enum Function {
            $($function,)*
        }

        impl Function {
            /// The name in the C API.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$function => $name,)*
                }
            }
        }
    };
}

impl Function {
    /// Where the table holds the pointer, in bytes from the table's start.
    pub fn offset(self) -> usize {
        size_of::<ApiHeader>() + self as usize * size_of::<usize>()
    }
}

functions! {
    ErrorDestroy = "PJRT_Error_Destroy",
    ErrorMessage = "PJRT_Error_Message",
    ErrorGetCode = "PJRT_Error_GetCode",
    PluginInitialize = "PJRT_Plugin_Initialize",
    PluginAttributes = "PJRT_Plugin_Attributes",
    EventDestroy = "PJRT_Event_Destroy",
    EventIsReady = "PJRT_Event_IsReady",
    EventError = "PJRT_Event_Error",
    EventAwait = "PJRT_Event_Await",
    EventOnReady = "PJRT_Event_OnReady",
    ClientCreate = "PJRT_Client_Create",
    ClientDestroy = "PJRT_Client_Destroy",
    ClientPlatformName = "PJRT_Client_PlatformName",
    ClientProcessIndex = "PJRT_Client_ProcessIndex",
    ClientPlatformVersion = "PJRT_Client_PlatformVersion",
    ClientDevices = "PJRT_Client_Devices",
    ClientAddressableDevices = "PJRT_Client_AddressableDevices",
    ClientLookupDevice = "PJRT_Client_LookupDevice",
    ClientLookupAddressableDevice = "PJRT_Client_LookupAddressableDevice",
    ClientAddressableMemories = "PJRT_Client_AddressableMemories",
    ClientCompile = "PJRT_Client_Compile",
    ClientDefaultDeviceAssignment = "PJRT_Client_DefaultDeviceAssignment",
    ClientBufferFromHostBuffer = "PJRT_Client_BufferFromHostBuffer",
    DeviceDescriptionId = "PJRT_DeviceDescription_Id",
    DeviceDescriptionProcessIndex = "PJRT_DeviceDescription_ProcessIndex",
    DeviceDescriptionAttributes = "PJRT_DeviceDescription_Attributes",
    DeviceDescriptionKind = "PJRT_DeviceDescription_Kind",
    DeviceDescriptionDebugString = "PJRT_DeviceDescription_DebugString",
    DeviceDescriptionToString = "PJRT_DeviceDescription_ToString",
    DeviceGetDescription = "PJRT_Device_GetDescription",
    DeviceIsAddressable = "PJRT_Device_IsAddressable",
    DeviceLocalHardwareId = "PJRT_Device_LocalHardwareId",
    DeviceAddressableMemories = "PJRT_Device_AddressableMemories",
    DeviceDefaultMemory = "PJRT_Device_DefaultMemory",
    DeviceMemoryStats = "PJRT_Device_MemoryStats",
    MemoryId = "PJRT_Memory_Id",
    MemoryKind = "PJRT_Memory_Kind",
    MemoryDebugString = "PJRT_Memory_DebugString",
    MemoryToString = "PJRT_Memory_ToString",
    MemoryAddressableByDevices = "PJRT_Memory_AddressableByDevices",
    ExecutableDestroy = "PJRT_Executable_Destroy",
    ExecutableName = "PJRT_Executable_Name",
    ExecutableNumReplicas = "PJRT_Executable_NumReplicas",
    ExecutableNumPartitions = "PJRT_Executable_NumPartitions",
    ExecutableNumOutputs = "PJRT_Executable_NumOutputs",
    ExecutableSizeOfGeneratedCodeInBytes = "PJRT_Executable_SizeOfGeneratedCodeInBytes",
    ExecutableGetCostAnalysis = "PJRT_Executable_GetCostAnalysis",
    ExecutableOutputMemoryKinds = "PJRT_Executable_OutputMemoryKinds",
    ExecutableOptimizedProgram = "PJRT_Executable_OptimizedProgram",
    ExecutableSerialize = "PJRT_Executable_Serialize",
    LoadedExecutableDestroy = "PJRT_LoadedExecutable_Destroy",
    LoadedExecutableGetExecutable = "PJRT_LoadedExecutable_GetExecutable",
    LoadedExecutableAddressableDevices = "PJRT_LoadedExecutable_AddressableDevices",
    LoadedExecutableDelete = "PJRT_LoadedExecutable_Delete",
    LoadedExecutableIsDeleted = "PJRT_LoadedExecutable_IsDeleted",
    LoadedExecutableExecute = "PJRT_LoadedExecutable_Execute",
    ExecutableDeserializeAndLoad = "PJRT_Executable_DeserializeAndLoad",
    LoadedExecutableFingerprint = "PJRT_LoadedExecutable_Fingerprint",
    BufferDestroy = "PJRT_Buffer_Destroy",
    BufferElementType = "PJRT_Buffer_ElementType",
    BufferDimensions = "PJRT_Buffer_Dimensions",
    BufferUnpaddedDimensions = "PJRT_Buffer_UnpaddedDimensions",
    BufferDynamicDimensionIndices = "PJRT_Buffer_DynamicDimensionIndices",
    BufferGetMemoryLayout = "PJRT_Buffer_GetMemoryLayout",
    BufferOnDeviceSizeInBytes = "PJRT_Buffer_OnDeviceSizeInBytes",
    BufferDevice = "PJRT_Buffer_Device",
    BufferMemory = "PJRT_Buffer_Memory",
    BufferDelete = "PJRT_Buffer_Delete",
    BufferIsDeleted = "PJRT_Buffer_IsDeleted",
    BufferCopyToDevice = "PJRT_Buffer_CopyToDevice",
    BufferToHostBuffer = "PJRT_Buffer_ToHostBuffer",
    BufferIsOnCpu = "PJRT_Buffer_IsOnCpu",
    BufferReadyEvent = "PJRT_Buffer_ReadyEvent",
    BufferUnsafePointer = "PJRT_Buffer_UnsafePointer",
    BufferIncreaseExternalReferenceCount = "PJRT_Buffer_IncreaseExternalReferenceCount",
    BufferDecreaseExternalReferenceCount = "PJRT_Buffer_DecreaseExternalReferenceCount",
    BufferOpaqueDeviceMemoryDataPointer = "PJRT_Buffer_OpaqueDeviceMemoryDataPointer",
    CopyToDeviceStreamDestroy = "PJRT_CopyToDeviceStream_Destroy",
    CopyToDeviceStreamAddChunk = "PJRT_CopyToDeviceStream_AddChunk",
    CopyToDeviceStreamTotalBytes = "PJRT_CopyToDeviceStream_TotalBytes",
    CopyToDeviceStreamGranuleSize = "PJRT_CopyToDeviceStream_GranuleSize",
    CopyToDeviceStreamCurrentBytes = "PJRT_CopyToDeviceStream_CurrentBytes",
    TopologyDescriptionCreate = "PJRT_TopologyDescription_Create",
    TopologyDescriptionDestroy = "PJRT_TopologyDescription_Destroy",
    TopologyDescriptionPlatformName = "PJRT_TopologyDescription_PlatformName",
    TopologyDescriptionPlatformVersion = "PJRT_TopologyDescription_PlatformVersion",
    TopologyDescriptionGetDeviceDescriptions = "PJRT_TopologyDescription_GetDeviceDescriptions",
    TopologyDescriptionSerialize = "PJRT_TopologyDescription_Serialize",
    TopologyDescriptionAttributes = "PJRT_TopologyDescription_Attributes",
    Compile = "PJRT_Compile",
    ExecutableOutputElementTypes = "PJRT_Executable_OutputElementTypes",
    ExecutableOutputDimensions = "PJRT_Executable_OutputDimensions",
    BufferCopyToMemory = "PJRT_Buffer_CopyToMemory",
    ClientCreateViewOfDeviceBuffer = "PJRT_Client_CreateViewOfDeviceBuffer",
    ExecutableFingerprint = "PJRT_Executable_Fingerprint",
    ClientTopologyDescription = "PJRT_Client_TopologyDescription",
    ExecutableGetCompiledMemoryStats = "PJRT_Executable_GetCompiledMemoryStats",
    MemoryKindId = "PJRT_Memory_Kind_Id",
    ExecuteContextCreate = "PJRT_ExecuteContext_Create",
    ExecuteContextDestroy = "PJRT_ExecuteContext_Destroy",
    BufferCopyRawToHost = "PJRT_Buffer_CopyRawToHost",
    AsyncHostToDeviceTransferManagerDestroy = "PJRT_AsyncHostToDeviceTransferManager_Destroy",
    AsyncHostToDeviceTransferManagerTransferData = "PJRT_AsyncHostToDeviceTransferManager_TransferData",
    ClientCreateBuffersForAsyncHostToDevice = "PJRT_Client_CreateBuffersForAsyncHostToDevice",
    AsyncHostToDeviceTransferManagerRetrieveBuffer = "PJRT_AsyncHostToDeviceTransferManager_RetrieveBuffer",
    AsyncHostToDeviceTransferManagerDevice = "PJRT_AsyncHostToDeviceTransferManager_Device",
    AsyncHostToDeviceTransferManagerBufferCount = "PJRT_AsyncHostToDeviceTransferManager_BufferCount",
    AsyncHostToDeviceTransferManagerBufferSize = "PJRT_AsyncHostToDeviceTransferManager_BufferSize",
    AsyncHostToDeviceTransferManagerSetBufferError = "PJRT_AsyncHostToDeviceTransferManager_SetBufferError",
    AsyncHostToDeviceTransferManagerAddMetadata = "PJRT_AsyncHostToDeviceTransferManager_AddMetadata",
    ClientDmaMap = "PJRT_Client_DmaMap",
    ClientDmaUnmap = "PJRT_Client_DmaUnmap",
    ClientCreateUninitializedBuffer = "PJRT_Client_CreateUninitializedBuffer",
    ClientUpdateGlobalProcessInfo = "PJRT_Client_UpdateGlobalProcessInfo",
    TopologyDescriptionDeserialize = "PJRT_TopologyDescription_Deserialize",
    ClientCreateAliasBuffer = "PJRT_Client_CreateAliasBuffer",
    ClientFulfillAliasBuffer = "PJRT_Client_FulfillAliasBuffer",
    LoadedExecutableGetDeviceAssignment = "PJRT_LoadedExecutable_GetDeviceAssignment",
    ClientCreateErrorBuffer = "PJRT_Client_CreateErrorBuffer",
    AsyncHostToDeviceTransferManagerTransferLiteral = "PJRT_AsyncHostToDeviceTransferManager_TransferLiteral",
    BufferCopyRawToHostFuture = "PJRT_Buffer_CopyRawToHostFuture",
    DevicePoisonExecution = "PJRT_Device_PoisonExecution",
    DeviceCreateAsyncTrackingEvent = "PJRT_Device_CreateAsyncTrackingEvent",
    AsyncTrackingEventDestroy = "PJRT_AsyncTrackingEvent_Destroy",
    ExecutableGetCompileOptions = "PJRT_Executable_GetCompileOptions",
    BufferDonateWithControlDependency = "PJRT_Buffer_DonateWithControlDependency",
    EventCreate = "PJRT_Event_Create",
    EventSet = "PJRT_Event_Set",
    DeviceGetAttributes = "PJRT_Device_GetAttributes",
    ClientLoad = "PJRT_Client_Load",
    LoadedExecutableAddressableDeviceLogicalIds = "PJRT_LoadedExecutable_AddressableDeviceLogicalIds",
    BufferBitcast = "PJRT_Buffer_Bitcast",
    ErrorForEachPayload = "PJRT_Error_ForEachPayload",
    TopologyDescriptionFingerprint = "PJRT_TopologyDescription_Fingerprint",
    ExecutableParameterMemoryKinds = "PJRT_Executable_ParameterMemoryKinds",
    DeviceClearMemoryStats = "PJRT_Device_ClearMemoryStats",
    TopologyDescriptionMakeCanonicalShapeForMemorySpace = "PJRT_TopologyDescription_MakeCanonicalShapeForMemorySpace",
    TopologyDescriptionGetMemorySpaceKindIds = "PJRT_TopologyDescription_GetMemorySpaceKindIds",
}

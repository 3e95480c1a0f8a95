//! A plugin for ABI major 4711. A host must refuse it by its descriptor; running anything of it kills the process.

#![expect(unsafe_code, reason = "exports the ABI's symbols by hand, as the SDK knows one major only")]

use recgate_plugin_api::abi::{ABI_MINOR, DESCRIPTOR_MAGIC, RgDescriptor, RgError, RgHost, RgPlugin};

/// All right but for its major.
#[allow(non_upper_case_globals)]
// SAFETY: the name belongs to the ABI, and nothing else in this library exports it.
#[unsafe(no_mangle)]
pub static rg_plugin_descriptor: RgDescriptor = RgDescriptor {
    magic: DESCRIPTOR_MAGIC,
    struct_size: size_of::<RgDescriptor>() as u32,
    abi_major: 4711,
    abi_minor: ABI_MINOR,
    reserved: 0,
    name: *b"wrong-major\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    version: *b"1.0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    licence: [b'0'; 64],
};

/// Must never be called.
// SAFETY: the name belongs to the ABI, and nothing else in this library exports it.
#[unsafe(no_mangle)]
pub extern "C" fn rg_plugin_init(_: *const RgHost, _: *mut RgPlugin, _: *mut RgError) -> i32 {
    std::process::abort()
}

//! Fails to build as soon as one of the crates below brings `std` along, which has a panic handler of its own.
#![no_std]

extern crate alloc;
// Named, or the linker would not look at them.
extern crate iscsi_pdu as _;
extern crate scsi_cmd as _;

use core::alloc::{GlobalAlloc, Layout};

struct NoMemory;

// SAFETY: it never hands out memory.
unsafe impl GlobalAlloc for NoMemory {
    unsafe fn alloc(&self, _: Layout) -> *mut u8 {
        core::ptr::null_mut()
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static ALLOCATOR: NoMemory = NoMemory;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

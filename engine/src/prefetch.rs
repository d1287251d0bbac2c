//! Asking the processor for memory before it is needed. A look-up among a million streams touches memory that is in no
//! cache, and so does a batch that is copied into its place: asked for early, the memory is there by then.
#![allow(unsafe_code)]

/// What a processor fetches at a time.
const LINE_BYTES: usize = 64;

/// Asks for the memory at an address, which need not be one.
pub(crate) fn fetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching reads nothing that the program could see, and never faults, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch(address as *const i8, std::arch::x86_64::_MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Asks for an item of a slice.
pub(crate) fn fetch_item<T>(items: &[T], at: usize) {
    if let Some(item) = items.get(at) {
        fetch(std::ptr::from_ref(item).addr());
    }
}

/// Asks for so many bytes from an address on, which will be written.
pub(crate) fn fetch_to_write(address: usize, bytes: usize) {
    for line in (0..bytes).step_by(LINE_BYTES) {
        let address = address.wrapping_add(line);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        unsafe {
            std::arch::x86_64::_mm_prefetch(address as *const i8, std::arch::x86_64::_MM_HINT_ET0);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = address;
    }
}

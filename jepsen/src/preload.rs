//! A wrong date for one process: this library is loaded into a controller (LD_PRELOAD) and shifts what the wall clock
//! tells by a number of seconds that stands in a file, which the harness may change at any moment. The monotonic clock is
//! left alone.
//!
//! libfaketime cannot do it here: it asks for memory when it is first asked for the time, and the program's allocator
//! asks for the time when it is first asked for memory.
//!
//! Must never: ask for memory, or lock anything.
#![allow(unsafe_code, reason = "stands in for functions of the C library")]

use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

use libc::{clockid_t, pthread_cond_t, pthread_mutex_t, time_t, timespec, timeval};

/// Names the file: eight bytes, seconds, of this machine's order.
const FILE: &CStr = c"JEPSEN_CLOCK";

/// Where the file is in memory, once it is.
static SHIFT: AtomicPtr<AtomicI64> = AtomicPtr::new(ptr::null_mut());
/// What stands there if there is no file.
static NONE: AtomicI64 = AtomicI64::new(0);
/// The C library's own wait.
static WAIT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

/// By how many seconds the wall clock is wrong.
fn shift_s() -> i64 {
    let mut shift = SHIFT.load(Ordering::Acquire);
    if shift.is_null() {
        shift = map();
        SHIFT.store(shift, Ordering::Release);
    }
    // SAFETY: `map` returns a place that stays for the life of the process.
    unsafe { (*shift).load(Ordering::Relaxed) }
}

/// Two threads may both do this: then one mapping is left over.
fn map() -> *mut AtomicI64 {
    let none = ptr::addr_of!(NONE).cast_mut();
    // SAFETY: the name is a C string; the mapping is of a file of eight bytes at least, which is never cut short.
    unsafe {
        let path = libc::getenv(FILE.as_ptr());
        if path.is_null() {
            return none;
        }
        let file = libc::open(path, libc::O_RDONLY | libc::O_CLOEXEC);
        if file < 0 {
            return none;
        }
        let at = libc::mmap(ptr::null_mut(), 8, libc::PROT_READ, libc::MAP_SHARED, file, 0);
        libc::close(file);
        if at == libc::MAP_FAILED { none } else { at.cast() }
    }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, at: *mut timespec) -> c_int {
    // SAFETY: the caller's pointer goes on to the kernel, and is good if the kernel has taken it.
    unsafe {
        let done = libc::syscall(libc::SYS_clock_gettime, clock, at) as c_int;
        if done == 0 && (clock == libc::CLOCK_REALTIME || clock == libc::CLOCK_REALTIME_COARSE) {
            (*at).tv_sec += shift_s();
        }
        done
    }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(at: *mut timeval, zone: *mut c_void) -> c_int {
    // SAFETY: as above.
    unsafe {
        let done = libc::syscall(libc::SYS_gettimeofday, at, zone) as c_int;
        if done == 0 && !at.is_null() {
            (*at).tv_sec += shift_s();
        }
        done
    }
}

/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(at: *mut time_t) -> time_t {
    let mut now = timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is ours, and `at` is the caller's, or null.
    unsafe {
        clock_gettime(libc::CLOCK_REALTIME, &raw mut now);
        if !at.is_null() {
            *at = now.tv_sec;
        }
    }
    now.tv_sec
}

/// A wait until a time of the wall clock, which the kernel counts by the right one. Whoever waits by the monotonic clock
/// here would wait wrongly; RocksDB, the only one who calls this, does not.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_timedwait(
    condition: *mut pthread_cond_t,
    mutex: *mut pthread_mutex_t,
    until: *const timespec,
) -> c_int {
    type Wait = unsafe extern "C" fn(*mut pthread_cond_t, *mut pthread_mutex_t, *const timespec) -> c_int;
    let mut wait = WAIT.load(Ordering::Acquire);
    // SAFETY: the name is that of a function of this type, and the C library that has it is never unloaded.
    unsafe {
        if wait.is_null() {
            wait = libc::dlsym(libc::RTLD_NEXT, c"pthread_cond_timedwait".as_ptr());
            WAIT.store(wait, Ordering::Release);
        }
        let wait: Wait = std::mem::transmute(wait);
        let mut right = *until;
        right.tv_sec -= shift_s();
        wait(condition, mutex, &raw const right)
    }
}

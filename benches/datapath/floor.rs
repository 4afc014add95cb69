//! What a test run costs by itself: of a program that passes every packet and does nothing else.
#![expect(unsafe_code, reason = "raw system calls: aya loads programs from object files only")]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_prog_type};

use crate::fixture::World;
use crate::median;

/// `r0 = XDP_PASS; exit`
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

/// Nanoseconds a packet, when a run repeats it that often.
pub fn of(world: &World, times: u32) -> f64 {
    let program = load().expect("the smallest of programs");
    let packet = world.syn().bytes();
    let runs = (250 / times).max(1);
    let run = || (0..runs).map(|_| once(&program, &packet, times)).sum::<f64>() / f64::from(runs);
    run();
    median(run)
}

fn load() -> io::Result<OwnedFd> {
    let mut attr = empty();
    let license = c"GPL";
    // SAFETY: the field of this command; what it points to outlives the call.
    unsafe {
        let load = &mut attr.__bindgen_anon_3;
        load.prog_type = bpf_prog_type::BPF_PROG_TYPE_XDP as u32;
        load.insn_cnt = PASS.len() as u32;
        load.insns = PASS.as_ptr() as u64;
        load.license = license.as_ptr() as u64;
    }
    let descriptor = call(bpf_cmd::BPF_PROG_LOAD, &mut attr)?;
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}

fn once(program: &OwnedFd, packet: &[u8], times: u32) -> f64 {
    let mut attr = empty();
    attr.test.prog_fd = program.as_raw_fd() as u32;
    attr.test.data_in = packet.as_ptr() as u64;
    attr.test.data_size_in = packet.len() as u32;
    attr.test.repeat = times;
    call(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr).expect("a test run");
    // SAFETY: the kernel has filled in this command's part.
    f64::from(unsafe { attr.test.duration })
}

fn empty() -> bpf_attr {
    // SAFETY: plain data, for which all zeros is a valid value.
    unsafe { std::mem::zeroed() }
}

fn call(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i64> {
    // SAFETY: what `attr` points to was given with its size, above.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<bpf_attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

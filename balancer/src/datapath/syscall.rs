//! The system calls that neither the standard library, nix nor aya offers.
#![allow(unsafe_code, reason = "raw system calls")]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya::Pod;
use aya_obj::generated::{
    bpf_attr, bpf_attr__bindgen_ty_2, bpf_attr__bindgen_ty_2__bindgen_ty_1, bpf_attr__bindgen_ty_3, bpf_cmd,
    bpf_link_info, bpf_link_type,
};

/// `SO_NETNS_COOKIE` (asm-generic/socket.h, since Linux 5.14).
const SO_NETNS_COOKIE: libc::c_int = 71;

/// The cookie of the network namespace that this socket lives in: unique until the next boot.
///
/// # Errors
/// Kernels before 5.14.
pub fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// A value as the kernel has written it; `None` if it is cut short.
pub fn from_bytes<V: Pod>(bytes: &[u8]) -> Option<V> {
    // SAFETY: as many bytes as a value has, and any bit pattern is a value of a Pod.
    (bytes.len() >= size_of::<V>()).then(|| unsafe { bytes.as_ptr().cast::<V>().read_unaligned() })
}

/// Removes an entry of a hash map and returns what it held: of several who try, one gets it (Linux 5.14).
///
/// # Errors
/// `ENOENT` when there is none, and what the kernel refuses.
pub fn take<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<V> {
    let mut value = MaybeUninit::<V>::uninit();
    // SAFETY: `key` and `value` are valid for the sizes that the caller has checked against the map.
    unsafe { element(bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_ELEM, map, key, value.as_mut_ptr() as u64)? };
    // SAFETY: the kernel has filled it in; any bit pattern is a value of a Pod.
    Ok(unsafe { value.assume_init() })
}

/// The value of a key in a hash map. With aya, which wants a handle for itself to write, every thread would have
/// descriptors of its own for every map.
///
/// # Errors
/// `ENOENT` when there is none, and what the kernel refuses.
pub fn lookup<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<V> {
    let mut value = MaybeUninit::<V>::uninit();
    // SAFETY: as above.
    unsafe { element(bpf_cmd::BPF_MAP_LOOKUP_ELEM, map, key, value.as_mut_ptr() as u64)? };
    // SAFETY: the kernel has filled it in; any bit pattern is a value of a Pod.
    Ok(unsafe { value.assume_init() })
}

/// Writes the value of a key in a hash map.
///
/// # Errors
/// `E2BIG` when the map is full, and what the kernel refuses.
pub fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    // SAFETY: as above; the kernel only reads both.
    unsafe { element(bpf_cmd::BPF_MAP_UPDATE_ELEM, map, key, std::ptr::from_ref(value) as u64) }
}

/// Removes a key from a hash map.
///
/// # Errors
/// `ENOENT` when there is none, and what the kernel refuses.
pub fn remove<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    // SAFETY: as above; the kernel only reads the key.
    unsafe { element(bpf_cmd::BPF_MAP_DELETE_ELEM, map, key, 0) }
}

/// # Safety
/// `key` must have the size of the map's keys, and what is at `value` the size of its values.
unsafe fn element<K: Pod>(command: bpf_cmd, map: BorrowedFd<'_>, key: &K, value: u64) -> io::Result<()> {
    // SAFETY: integers only, and the kernel wants what is not used to be zero.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.__bindgen_anon_2 = bpf_attr__bindgen_ty_2 {
        map_fd: map.as_raw_fd() as u32,
        key: std::ptr::from_ref(key) as u64,
        __bindgen_anon_1: bpf_attr__bindgen_ty_2__bindgen_ty_1 { value },
        flags: 0,
    };
    // SAFETY: the caller vouches for both pointers.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<bpf_attr>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A walk over a hash map in batches; aya has no batch operations, and key by key is two calls an entry.
///
/// The place in the walk is the kernel's and survives the removal of any entry.
#[derive(Debug)]
pub struct BatchWalk {
    place: Option<u32>,
    capacity: usize,
}

impl BatchWalk {
    /// A walk that reads about `capacity` entries at a time; must be more than one bucket holds.
    pub fn new(capacity: usize) -> Self {
        Self::resume(None, capacity)
    }

    /// A walk that goes on at the place where another one was.
    pub fn resume(place: Option<u32>, capacity: usize) -> Self {
        Self { place, capacity }
    }

    /// The place where the next entries come from; `None`: the beginning.
    pub fn place(&self) -> Option<u32> {
        self.place
    }

    /// The next entries, and whether the map's end was reached; after that the walk begins again.
    ///
    /// # Errors
    /// `ENOSPC` for a bucket larger than the capacity, and what the kernel refuses.
    pub fn next<K: Pod, V: Pod>(&mut self, map: BorrowedFd<'_>) -> io::Result<(Vec<(K, V)>, bool)> {
        self.batch(bpf_cmd::BPF_MAP_LOOKUP_BATCH, map)
    }

    /// The same, and the entries are removed.
    ///
    /// # Errors
    /// As for [`Self::next`].
    pub fn take<K: Pod, V: Pod>(&mut self, map: BorrowedFd<'_>) -> io::Result<(Vec<(K, V)>, bool)> {
        self.batch(bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_BATCH, map)
    }

    fn batch<K: Pod, V: Pod>(
        &mut self,
        command: bpf_cmd,
        map: BorrowedFd<'_>,
    ) -> io::Result<(Vec<(K, V)>, bool)> {
        let mut keys = vec![MaybeUninit::<K>::uninit(); self.capacity];
        let mut values = vec![MaybeUninit::<V>::uninit(); self.capacity];
        let mut next_place = 0_u32;
        // SAFETY: integers only, and the kernel wants what is not used to be zero.
        let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
        attr.batch = bpf_attr__bindgen_ty_3 {
            in_batch: self.place.as_ref().map_or(0, |place| std::ptr::from_ref(place) as u64),
            out_batch: &raw mut next_place as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: self.capacity as u32,
            map_fd: map.as_raw_fd() as u32,
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the pointers are valid for `capacity` entries of the sizes that aya has checked against the map.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of::<bpf_attr>()) };
        let error = io::Error::last_os_error();
        let at_end = result != 0 && error.raw_os_error() == Some(libc::ENOENT);
        if result != 0 && !at_end {
            self.place = None;
            return Err(error);
        }
        self.place = (!at_end).then_some(next_place);
        // SAFETY: the kernel has written this field.
        let count = unsafe { attr.batch.count } as usize;
        let entries = keys.iter().zip(&values).take(count);
        // SAFETY: the kernel has filled in the first `count` of both; any bit pattern is a value of a Pod.
        Ok((entries.map(|(k, v)| unsafe { (k.assume_init(), v.assume_init()) }).collect(), at_end))
    }
}

/// A program that a link keeps on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct XdpLink {
    /// The link's number, as `bpftool link` shows it.
    pub id: u32,
    /// The program's number.
    pub program: u32,
    /// The interface's number, in whatever namespace it is.
    pub interface: u32,
}

/// Every XDP link of this host. aya lists links, but not the interface of one.
///
/// # Errors
/// Nobody may look.
pub fn xdp_links() -> io::Result<Vec<XdpLink>> {
    let (mut links, mut last) = (Vec::new(), 0);
    while let Some(id) = next_link(last)? {
        // One that goes away meanwhile is none any more.
        links.extend(link(id).ok().flatten());
        last = id;
    }
    Ok(links)
}

fn next_link(last: u32) -> io::Result<Option<u32>> {
    // SAFETY: integers only, and the kernel wants what is not used to be zero.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.__bindgen_anon_6.__bindgen_anon_1.start_id = last;
    // SAFETY: no pointer but the one to `attr` itself.
    match unsafe { bpf(bpf_cmd::BPF_LINK_GET_NEXT_ID, &mut attr) } {
        // SAFETY: the kernel has written this field.
        Ok(_) => Ok(Some(unsafe { attr.__bindgen_anon_6.next_id })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The link of that number, if it is one of XDP.
fn link(id: u32) -> io::Result<Option<XdpLink>> {
    // SAFETY: as above.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    attr.__bindgen_anon_6.__bindgen_anon_1.link_id = id;
    // SAFETY: as above; the descriptor is new and nobody else's.
    let link = unsafe { OwnedFd::from_raw_fd(bpf(bpf_cmd::BPF_LINK_GET_FD_BY_ID, &mut attr)?) };
    // SAFETY: as above.
    let (mut info, mut attr): (bpf_link_info, bpf_attr) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    attr.info.bpf_fd = link.as_raw_fd() as u32;
    attr.info.info_len = size_of::<bpf_link_info>() as u32;
    attr.info.info = &raw mut info as u64;
    // SAFETY: the kernel writes at most `info_len` bytes, which is the size of `info`.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr)? };
    // SAFETY: all of it is integers, and was zero before.
    let interface = unsafe { info.__bindgen_anon_1.xdp.ifindex };
    let is_xdp = info.type_ == bpf_link_type::BPF_LINK_TYPE_XDP as u32;
    Ok(is_xdp.then_some(XdpLink { id, program: info.prog_id, interface }))
}

/// # Safety
/// Every pointer in `attr` must be valid for what the command does with it.
unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<libc::c_int> {
    // SAFETY: the caller vouches for what is in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, size_of::<bpf_attr>()) };
    // Descriptors and zero, so it fits.
    if result >= 0 { Ok(result as libc::c_int) } else { Err(io::Error::last_os_error()) }
}

//! `build-ebpf [--check]`: the eBPF object in spooky-user/bpf/ and whether it belongs to its source.

/// # Errors
/// Always: the kernel side is not in the tree yet.
pub(crate) fn run(_check: bool) -> Result<(), String> {
    Err("spooky-ebpf is not in the tree yet".to_owned())
}

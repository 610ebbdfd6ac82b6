//! Attaching: native, generic, neither; who is told what; and that it is undone.

use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags, capabilities, set_capabilities};
use spooky_user::controlplane::kernel::{
    Attach, Kernel, KernelError, Mode, OnFailure, Running, Settings,
};

use crate::{
    group::{Group, desired, kernel, settings},
    netns::{self, run},
    rig,
};

fn on(interface: &str, attach: Attach) -> Settings {
    let mut settings = settings(Mode::Xdp);
    settings.interface = Some(interface.to_owned());
    settings.attach = attach;
    settings
}

#[test]
fn h07_native_where_the_driver_can_and_gone_with_the_kernel() {
    let test = "attach native";
    let Some(()) = netns::enter(test) else { return };
    netns::ip(&["link", "add", "edge0", "type", "veth", "peer", "name", "edge1"]);
    let settings = on("edge0", Attach::Auto);
    let Some(mut first) = kernel(test, &settings) else { return };
    assert_eq!(first.attach_xdp().expect("attach"), Running::XdpNative);
    assert_eq!(first.attach_xdp().expect("once more"), Running::XdpNative);
    let mut second = Kernel::load(&settings).expect("load");
    let taken = second.attach_xdp();
    assert!(
        matches!(&taken, Err(KernelError::InterfaceOccupied(name)) if name == "edge0"),
        "{taken:?}"
    );
    let mut generic = Kernel::load(&on("edge0", Attach::Generic)).expect("load");
    let taken = generic.attach_xdp();
    assert!(matches!(&taken, Err(KernelError::InterfaceOccupied(_))), "{taken:?}");
    drop(first);
    assert_eq!(second.attach_xdp().expect("free again"), Running::XdpNative);
}

#[test]
fn h07_generic_where_the_driver_cannot() {
    let test = "attach generic";
    let Some(()) = netns::enter(test) else { return };
    let Some(mut auto) = kernel(test, &on("lo", Attach::Auto)) else { return };
    assert_eq!(auto.attach_xdp().expect("attach"), Running::XdpGeneric);
    assert_eq!(auto.running().to_string(), "xdp_generic");
    drop(auto);
    let mut native = Kernel::load(&on("lo", Attach::Native)).expect("load");
    match native.attach_xdp() {
        Err(error @ KernelError::AttachRefused { native: Some(_), generic: None, .. }) => {
            let said = error.to_string();
            assert!(
                said.starts_with("lo takes no XDP program: native:") && !said.contains('\n'),
                "{said}"
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(native.running(), Running::Reuseport);
}

/// A program without multi-buffer support takes no frame larger than a page, so the driver refuses it.
#[test]
fn h07_generic_where_frames_are_too_large() {
    let test = "attach with jumbo frames";
    let Some(()) = netns::enter(test) else { return };
    let jumbo = ["mtu", "9000", "type", "veth", "peer", "name", "edge1", "mtu", "9000"];
    netns::ip(&[&["link", "add", "edge0"], &jumbo[..]].concat());
    let Some(mut auto) = kernel(test, &on("edge0", Attach::Auto)) else { return };
    assert_eq!(auto.attach_xdp().expect("attach"), Running::XdpGeneric);
    drop(auto);
    let mut native = Kernel::load(&on("edge0", Attach::Native)).expect("load");
    let refused = native.attach_xdp();
    assert!(
        matches!(&refused, Err(KernelError::AttachRefused { native: Some(_), generic: None, .. })),
        "{refused:?}"
    );
    let said = refused.expect_err("refused").to_string();
    assert!(said.starts_with("edge0 takes no XDP program") && !said.contains('\n'), "{said}");
}

/// The types of the running kernel are a help to the loader, not a need.
#[test]
fn h07_works_where_the_kernel_has_no_type_information() {
    let test = "attach without BTF";
    let Some(()) = netns::enter(test) else { return };
    // SAFETY: a new mount namespace changes no memory and no file descriptor; this thread alone sees another file system,
    // and ends with the test.
    if let Err(error) = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) } {
        return rig::skip(test, &format!("a mount namespace needs CAP_SYS_ADMIN ({error})"));
    }
    run("mount", &["--make-rprivate", "/"]);
    run("mount", &["-t", "tmpfs", "none", "/sys/kernel/btf"]);
    assert!(!std::path::Path::new("/sys/kernel/btf/vmlinux").exists());
    let Some(mut kernel) = kernel(test, &on("lo", Attach::Auto)) else { return };
    assert_eq!(kernel.attach_xdp().expect("attach"), Running::XdpGeneric);
}

#[test]
fn h07_a_missing_interface_is_named() {
    let Some(mut abort) = kernel("missing interface", &on("nosuch0", Attach::Auto)) else { return };
    let missing = abort.attach_xdp();
    assert!(
        matches!(&missing, Err(KernelError::InterfaceMissing(name)) if name == "nosuch0"),
        "{missing:?}"
    );
    for name in ["", "an-interface-name-that-is-too-long", "nul\0nul"] {
        let mut kernel = Kernel::load(&on(name, Attach::Auto)).expect("load");
        assert!(matches!(kernel.attach_xdp(), Err(KernelError::InterfaceMissing(_))), "{name:?}");
    }
    let mut unnamed = on("", Attach::Auto);
    unnamed.interface = None;
    let mut kernel = Kernel::load(&unnamed).expect("load");
    assert!(matches!(kernel.attach_xdp(), Err(KernelError::NoInterface)));
}

#[test]
fn h07_fallback_goes_on_with_reuseport() {
    let mut settings = on("nosuch0", Attach::Auto);
    let Some(_) = kernel("fallback", &settings) else { return };
    settings.on_failure = OnFailure::Fallback;
    let mut kernel = Kernel::load(&settings).expect("load");
    assert_eq!(kernel.attach_xdp().expect("falls back"), Running::Reuseport);
    assert!(matches!(kernel.lost(), Some(KernelError::InterfaceMissing(_))));
    let group = Group::loopback(2);
    kernel.join_group(0, &group.owners(0)).expect("join");
    assert!(kernel.apply(&desired(0, &[1, 1], &[group.address])).expect("apply").total() > 256);
}

#[test]
fn mode_off_touches_nothing() {
    let mut kernel = Kernel::load(&settings(Mode::Off)).expect("needs no privilege");
    let group = Group::loopback(2);
    kernel.join_group(0, &group.owners(0)).expect("nothing to do");
    assert_eq!(kernel.attach_xdp().expect("nothing to do"), Running::Off);
    assert_eq!(
        kernel.apply(&desired(0, &[1], &[group.address])).expect("nothing to do").total(),
        0
    );
    assert_eq!(kernel.counters().expect("none"), []);
    kernel.drain_samples(|sample| panic!("{sample:?}"));
}

#[test]
fn h07_without_privilege_it_says_so_and_serves() {
    // Capabilities belong to a thread; this one is the test's own.
    let held = capabilities(None).expect("capabilities");
    let lost = CapabilitySet::BPF | CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    let left = CapabilitySets { effective: held.effective - lost, ..held };
    set_capabilities(None, left).expect("anyone may drop capabilities");
    let mut settings = on("lo", Attach::Auto);
    let refused = Kernel::load(&settings);
    assert!(matches!(refused, Err(KernelError::Privilege)), "{refused:?}");
    settings.on_failure = OnFailure::Fallback;
    let mut kernel = Kernel::load(&settings).expect("falls back");
    assert_eq!(kernel.attach_xdp().expect("falls back"), Running::Off);
    let said = kernel.lost().expect("a reason").to_string();
    assert!(said.contains("CAP_BPF") && !said.contains('\n'), "{said}");
}

#[test]
fn h07_without_perfmon_the_verifiers_refusal_is_a_matter_of_privilege() {
    let settings = settings(Mode::Reuseport);
    let Some(_) = kernel("perfmon", &settings) else { return };
    let held = capabilities(None).expect("capabilities");
    let left = CapabilitySets { effective: CapabilitySet::BPF | CapabilitySet::NET_ADMIN, ..held };
    set_capabilities(None, left).expect("anyone may drop capabilities");
    let refused = Kernel::load(&settings);
    assert!(matches!(refused, Err(KernelError::Privilege)), "{refused:?}");
}

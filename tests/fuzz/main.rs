//! Fuzzing as an ordinary test: every file of `corpus/TARGET/` is replayed, then the corpus is mutated for a second, by a
//! seed that is printed. `cargo xtask fuzz` runs the same targets for longer, led by coverage (`libfuzzer/`).
//!
//! ```text
//! targets/    one file a target: a property of anything that comes from outside, as a plain function of octets
//! script.rs   inputs as lines of text, so that a corpus can be read and written by hand
//! oracle.rs   what the RFCs say of fields, authorities and paths, written without a look at spooky's codec
//! rig.rs      a worker's endpoint, its sessions and a client in memory
//! upstream.rs a worker that sends on to a backend of the target's own
//! mutate.rs   new inputs from old ones
//! drive.rs    corpora, time, and what is told of a failure
//! ```

mod drive;
mod mutate;
mod oracle;
mod rig;
mod script;
mod targets;
mod upstream;

/// One test a target, and one that no target is left out.
macro_rules! ordinary {
    ($($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                drive::ordinary(stringify!($name));
            }
        )+

        #[test]
        fn every_target_is_run() {
            let here = [$(stringify!($name)),+];
            let all: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
            assert_eq!(here.as_slice(), all);
        }
    };
}

ordinary!(
    admin_http,
    authority_parse,
    cid_codec,
    config_load,
    config_reload,
    h2_backend_bytes,
    h3_request_validate,
    lb_state,
    path_normalise,
    posths_frames,
    reset_token,
    retry_token,
    translate_roundtrip,
    udp_front,
    xff_forwarded,
);

//! The targets: each a property that holds for every input. A function panics when it does not.

mod admin_http;
mod authority_parse;
mod cid_codec;
mod config_load;
mod config_reload;
mod h2_backend_bytes;
mod h3_request_validate;
mod lb_state;
mod path_normalise;
mod posths_frames;
mod reset_token;
mod retry_token;
mod translate_roundtrip;
mod udp_front;
mod xff_forwarded;

/// A property of anything that comes from outside.
pub(crate) struct Target {
    /// Its name, and that of its corpus.
    pub(crate) name: &'static str,
    /// Panics when the property does not hold for this input.
    pub(crate) run: fn(&[u8]),
    /// Octets of the longest input that is made.
    pub(crate) size_max: usize,
}

macro_rules! all {
    ($( $name:ident: $size_max:literal ),+ $(,)?) => {
        /// All targets, by name.
        pub(crate) const ALL: &[Target] = &[
            $( Target {
                name: stringify!($name),
                run: $name::run,
                size_max: $size_max,
            } ),+
        ];
    };
}

all! {
    admin_http: 4096,
    authority_parse: 512,
    cid_codec: 256,
    config_load: 8192,
    config_reload: 8192,
    h2_backend_bytes: 4096,
    h3_request_validate: 4096,
    lb_state: 2048,
    path_normalise: 1024,
    posths_frames: 4096,
    reset_token: 2048,
    retry_token: 1024,
    translate_roundtrip: 4096,
    udp_front: 4096,
    xff_forwarded: 2048,
}

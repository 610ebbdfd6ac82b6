//! What spooky tells about itself: metrics, access log. May import: codec, id.

//! The buffers quiche keeps until they are acknowledged: reference-counted, so that a response body goes from the HTTP/2
//! connection to the QUIC stream without a copy.

use bytes::Bytes;
use quiche::{BufFactory, BufSplit};

/// quiche's connection with our buffers.
pub type Transport = quiche::Connection<Buffers>;

/// Makes [`Chunk`]s.
#[derive(Clone, Debug, Default)]
pub struct Buffers;

/// A shared piece of a stream.
#[derive(Clone, Debug, Default)]
pub struct Chunk(pub Bytes);

impl BufFactory for Buffers {
    type Buf = Chunk;
    type DgramBuf = Vec<u8>;

    fn buf_from_slice(buf: &[u8]) -> Chunk {
        Chunk(Bytes::copy_from_slice(buf))
    }

    fn dgram_buf_from_slice(buf: &[u8]) -> Vec<u8> {
        buf.to_vec()
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl BufSplit for Chunk {
    fn split_at(&mut self, at: usize) -> Self {
        Self(self.0.split_off(at))
    }
}

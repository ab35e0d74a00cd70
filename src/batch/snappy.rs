//! Snappy as Kafka's clients write it: the stream format of snappy-java ("xerial"), a 16 byte head
//! and then blocks of `[length i32][raw snappy]`. Some clients send one raw snappy block without
//! any frame, which is accepted on reading.

use std::io;

use super::{BatchError, Codec};

/// First bytes of a xerial stream.
const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Magic, then version 1 and lowest compatible version 1.
const HEAD_BYTES: usize = 16;
/// Input per block, as snappy-java and librdkafka cut it.
const BLOCK_BYTES: usize = 32 * 1024;
/// No snappy element makes more of its bytes: a copy of 64 bytes takes 3.
const EXPANSION_MAX: usize = 22;

/// Compresses into a xerial stream.
pub fn compress(input: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = snap::raw::Encoder::new();
    let mut output = Vec::with_capacity(HEAD_BYTES + input.len() / 2);
    output.extend_from_slice(&MAGIC);
    output.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 1]);
    for block in input.chunks(BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block)?;
        output.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
        output.extend_from_slice(&compressed);
    }
    Ok(output)
}

/// Decompresses a xerial stream or one raw block into at most `output_bytes_max` bytes.
pub fn decompress(input: &[u8], output_bytes_max: usize) -> Result<Vec<u8>, BatchError> {
    let mut output = Vec::new();
    if !input.starts_with(&MAGIC) {
        append_block(&mut output, input, output_bytes_max)?;
        return Ok(output);
    }
    let mut rest = input.get(HEAD_BYTES..).ok_or(CORRUPT)?;
    while let Some((length, blocks)) = rest.split_first_chunk::<4>() {
        // Streams can be concatenated: the next head begins with the magic's first 4 bytes.
        if rest.starts_with(&MAGIC) {
            rest = rest.get(HEAD_BYTES..).ok_or(CORRUPT)?;
            continue;
        }
        let length = u32::from_be_bytes(*length) as usize;
        let (block, after) = blocks.split_at_checked(length).ok_or(CORRUPT)?;
        append_block(&mut output, block, output_bytes_max)?;
        rest = after;
    }
    if rest.is_empty() {
        Ok(output)
    } else {
        Err(CORRUPT)
    }
}

const CORRUPT: BatchError = BatchError::Corrupt(Codec::Snappy);

/// Decompresses one raw block to the end of `output`.
fn append_block(
    output: &mut Vec<u8>,
    block: &[u8],
    output_bytes_max: usize,
) -> Result<(), BatchError> {
    let size = snap::raw::decompress_len(block).map_err(|_| CORRUPT)?;
    if size > block.len().saturating_mul(EXPANSION_MAX) {
        return Err(CORRUPT);
    }
    if size > output_bytes_max.saturating_sub(output.len()) {
        return Err(BatchError::OutputLimit {
            limit: output_bytes_max,
        });
    }
    let start = output.len();
    output.resize(start + size, 0);
    let written = snap::raw::Decoder::new()
        .decompress(block, &mut output[start..])
        .map_err(|_| CORRUPT)?;
    output.truncate(start + written);
    Ok(())
}

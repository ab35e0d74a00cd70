//! Zigzag varints of the records section: at most 5 bytes for 32 bits, 10 for 64.

use super::BatchError;

/// Most bytes of a 64 bit varint.
const LONG_BYTES_MAX: usize = 10;

/// Appends a 64 bit number; 32 bit numbers have the same form.
pub fn put(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes that [`put`] writes.
pub fn size(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Reads a 32 bit number at `*position` and moves the position behind it.
#[inline]
pub fn read_int(bytes: &[u8], position: &mut usize) -> Result<i32, BatchError> {
    i32::try_from(read(bytes, position)?)
        .map_err(|_| BatchError::Malformed("a 32 bit varint is out of range"))
}

/// Reads a 64 bit number at `*position` and moves the position behind it.
#[inline]
pub fn read(bytes: &[u8], position: &mut usize) -> Result<i64, BatchError> {
    // Nearly all are this short: every record of every batch has at least five of them.
    if let Some(&byte) = bytes.get(*position)
        && byte < 0x80
    {
        *position += 1;
        return Ok(unzigzag(u64::from(byte)));
    }
    read_long(bytes, position)
}

fn read_long(bytes: &[u8], position: &mut usize) -> Result<i64, BatchError> {
    let mut value = 0u64;
    for index in 0..LONG_BYTES_MAX {
        let byte = *bytes
            .get(*position)
            .ok_or(BatchError::Malformed("a varint reaches past the end"))?;
        *position += 1;
        // The tenth byte has room for one bit.
        if index == LONG_BYTES_MAX - 1 && byte > 1 {
            break;
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok(unzigzag(value));
        }
    }
    Err(BatchError::Malformed("a varint is too long"))
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Small magnitudes become small unsigned numbers.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_have_the_size_that_was_promised() {
        for value in [
            0,
            -1,
            1,
            63,
            64,
            -64,
            -65,
            8191,
            8192,
            i64::MAX,
            i64::MIN,
            1 << 35,
        ] {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            assert_eq!(bytes.len(), size(value), "{value}");
            let mut position = 0;
            assert_eq!(read(&bytes, &mut position), Ok(value));
            assert_eq!(position, bytes.len());
            for end in 0..bytes.len() {
                assert!(read(&bytes[..end], &mut 0).is_err());
            }
        }
        assert_eq!(size(i64::MIN), 10);
    }

    #[test]
    fn known_bytes() {
        // From the protocol buffers documentation: zigzag -1 is 1, 1 is 2, 150 is 300 = ac 02.
        for (value, bytes) in [(-1, &[1][..]), (1, &[2]), (150, &[0xac, 0x02])] {
            let mut written = Vec::new();
            put(&mut written, value);
            assert_eq!(written, bytes);
        }
    }

    #[test]
    fn endless_and_oversized_numbers_are_refused() {
        assert!(read(&[0xff; 20], &mut 0).is_err());
        let mut eleven_bits_too_many = [0xff; 10];
        eleven_bits_too_many[9] = 2;
        assert!(read(&eleven_bits_too_many, &mut 0).is_err());
        let mut bytes = Vec::new();
        put(&mut bytes, i64::from(i32::MAX) + 1);
        assert!(read_int(&bytes, &mut 0).is_err());
    }
}

//! Systematic Reed-Solomon over GF(2^8): k rows of data, and rows k.. computed from them. Any k rows give all back.
//!
//! Row i depends on k and i only, never on how many rows were made, so more rows can be added to a segment later.
//! The code works byte column by byte column: a range of a lost row comes from the same range of any k others.

use bytes::Bytes;
use reed_solomon_erasure::galois_8::ReedSolomon;
use thiserror::Error;

use crate::limits::ROWS_MAX;

/// Why coding failed.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum ErasureError {
    /// k or n are not possible.
    #[error("{k} of {n} is no possible code")]
    Parameters {
        /// Rows of data.
        k: usize,
        /// Rows in all.
        n: usize,
    },
    /// Rows of different lengths, or empty ones.
    #[error("rows of different lengths")]
    Lengths,
    /// Fewer than k rows.
    #[error("{have} rows where {need} are needed")]
    TooFew {
        /// Rows at hand.
        have: usize,
        /// k.
        need: usize,
    },
}

fn coder(k: usize, n: usize) -> Result<ReedSolomon, ErasureError> {
    if k == 0 || n <= k || n > ROWS_MAX {
        return Err(ErasureError::Parameters { k, n });
    }
    ReedSolomon::new(k, n - k).map_err(|_| ErasureError::Parameters { k, n })
}

/// Computes rows k..n from the k rows in `data`.
pub fn parity(data: &[&[u8]], n: usize) -> Result<Vec<Vec<u8>>, ErasureError> {
    let k = data.len();
    let coder = coder(k, n)?;
    let len = data[0].len();
    let mut rows = vec![vec![0; len]; n - k];
    coder.encode_sep(data, &mut rows).map_err(|_| ErasureError::Lengths)?;
    Ok(rows)
}

/// Gives back data rows 0..k from any k of `rows` (row number, bytes). All must have one length; which ranges of
/// the rows they are is the caller's affair.
pub fn reconstruct(k: usize, rows: &[(u8, Bytes)]) -> Result<Vec<Bytes>, ErasureError> {
    if k == 0 || k >= ROWS_MAX {
        return Err(ErasureError::Parameters { k, n: k });
    }
    let mut data: Vec<Option<Bytes>> = vec![None; k];
    for (row, bytes) in rows {
        if let Some(slot) = data.get_mut(usize::from(*row)) {
            *slot = Some(bytes.clone());
        }
    }
    if data.iter().all(Option::is_some) {
        return Ok(data.into_iter().flatten().collect());
    }
    let n = rows.iter().map(|(row, _)| usize::from(*row) + 1).max().unwrap_or(0).max(k + 1);
    let coder = coder(k, n)?;
    let mut slots: Vec<Option<Vec<u8>>> = vec![None; n];
    let mut have = 0;
    for (row, bytes) in rows {
        let slot = &mut slots[usize::from(*row)];
        if slot.is_none() && have < k {
            *slot = Some(bytes.to_vec());
            have += 1;
        }
    }
    if have < k {
        return Err(ErasureError::TooFew { have, need: k });
    }
    coder.reconstruct_data(&mut slots).map_err(|_| ErasureError::Lengths)?;
    Ok(slots.into_iter().take(k).flatten().map(Bytes::from).collect())
}

/// Makes the given rows from any k of `rows`: what repair does, on ciphertext.
pub fn remake(k: usize, rows: &[(u8, Bytes)], wanted: &[u8]) -> Result<Vec<Bytes>, ErasureError> {
    let data = reconstruct(k, rows)?;
    let n = wanted.iter().map(|row| usize::from(*row) + 1).max().unwrap_or(0).max(k + 1);
    let slices: Vec<&[u8]> = data.iter().map(AsRef::as_ref).collect();
    let parity = parity(&slices, n)?;
    Ok(wanted
        .iter()
        .map(|row| match usize::from(*row).checked_sub(k) {
            Some(at) => Bytes::copy_from_slice(&parity[at]),
            None => data[usize::from(*row)].clone(),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_k_rows_give_all_back(
            (k, n) in (1usize..12).prop_flat_map(|k| (Just(k), k + 1..k + 14)),
            len in 1usize..300,
            seed: u64,
        ) {
            let mut all = vec![0; k * len];
            blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut all);
            let data: Vec<&[u8]> = all.chunks(len).collect();
            let parity = parity(&data, n).unwrap();
            let rows: Vec<(u8, Bytes)> = data.iter().map(|row| row.to_vec()).chain(parity)
                .enumerate().map(|(i, row)| (i as u8, Bytes::from(row))).collect();
            // k rows, picked by the seed
            let mut picked = rows.clone();
            picked.sort_by_key(|(row, _)| blake3::hash(&(seed ^ u64::from(*row)).to_be_bytes()).as_bytes()[0]);
            picked.truncate(k);
            let back = reconstruct(k, &picked).unwrap();
            prop_assert_eq!(back, data.iter().map(|row| Bytes::copy_from_slice(row)).collect::<Vec<_>>());
            // any range of a row comes from the same range of others
            let cut: Vec<(u8, Bytes)> = picked.iter().map(|(row, b)| (*row, b.slice(len / 3..len.div_ceil(2)))).collect();
            if len / 3 < len.div_ceil(2) {
                let part = reconstruct(k, &cut).unwrap();
                prop_assert_eq!(&part[0][..], &data[0][len / 3..len.div_ceil(2)]);
            }
            let all_rows: Vec<u8> = (0..n as u8).collect();
            let remade = remake(k, &picked, &all_rows).unwrap();
            prop_assert_eq!(remade, rows.into_iter().map(|(_, row)| row).collect::<Vec<_>>());
            picked.pop();
            prop_assert!(reconstruct(k, &picked).is_err());
        }
    }

    #[test]
    fn more_rows_later_are_the_same_rows() {
        let data: Vec<Vec<u8>> = (0..5).map(|i| vec![i * 3 + 1; 100]).collect();
        let slices: Vec<&[u8]> = data.iter().map(AsRef::as_ref).collect();
        let few = parity(&slices, 8).unwrap();
        let many = parity(&slices, 20).unwrap();
        assert_eq!(few[..], many[..3]);
    }

    #[test]
    fn impossible_codes_are_errors() {
        assert!(parity(&[&[1]], 1).is_err());
        assert!(parity(&[&[1]], 300).is_err());
        assert!(parity(&[], 3).is_err());
        assert!(parity(&[&[1, 2], &[1]], 3).is_err());
        assert!(reconstruct(0, &[]).is_err());
        assert!(reconstruct(2, &[(5, Bytes::from_static(b"a")), (6, Bytes::from_static(b"ab"))]).is_err());
    }
}

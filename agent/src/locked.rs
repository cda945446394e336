//! Memory that is never written to swap, for secrets that stay as long as the agent runs: the plaintext of the keystore
//! file, what opens it, the seed of the device and the secret of its era.
//!
//! Invariant: what is locked has its pages to itself, so that unlocking them when it goes takes the lock from nobody else,
//! and it is wiped before that. A system that lets nothing be locked (`ulimit -l 0`) is worked on all the same, and the log
//! and `hn status` say so once.
//!
//! What is not locked is said in `docs/threat-model.md`: keys that are derived for one use, what age and libp2p have
//! inside, and the stack.

use std::ops::Deref;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};

use region::LockGuard;
use zeroize::Zeroize;

/// Whether something could not be locked since the start.
static REFUSED: AtomicBool = AtomicBool::new(false);

/// Bytes of a page, or of the largest that there are on machines of this kind.
const PAGE: usize = align_of::<Page<()>>();

/// At the start of a page, with nothing behind it.
#[cfg_attr(target_arch = "x86_64", repr(align(4096)))]
#[cfg_attr(not(target_arch = "x86_64"), repr(align(65536)))]
#[derive(Clone)]
struct Page<T>(T);

/// Whole pages are given, or it locks what is around them.
fn lock<T>(pages: &[T]) -> Option<LockGuard> {
    let locked = region::lock(pages.as_ptr(), size_of_val(pages));
    if let Err(error) = &locked
        && !REFUSED.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(%error, "secrets cannot be kept out of swap");
    }
    locked.ok()
}

/// What to tell a person whose system locks nothing.
pub(crate) fn refused() -> Option<String> {
    REFUSED.load(Ordering::Relaxed).then(|| {
        "the system lets no memory be locked, so secrets may be written to swap: raise `ulimit -l` (LimitMEMLOCK= of a \
         service), or encrypt the swap"
            .to_owned()
    })
}

/// A value that is wiped when dropped, in locked memory.
pub(crate) struct Locked<T: Zeroize> {
    page: Box<Page<T>>,
    guard: Option<LockGuard>,
}

impl<T: Zeroize> Locked<T> {
    /// Takes a value in. Where it was before it is wiped by its own drop, or was on the stack.
    pub(crate) fn new(value: T) -> Self {
        let page = Box::new(Page(value));
        let guard = lock(slice::from_ref(&*page));
        Self { page, guard }
    }
}

impl<T: Zeroize + Clone> Clone for Locked<T> {
    fn clone(&self) -> Self {
        Self::new(self.page.0.clone())
    }
}

impl<T: Zeroize> Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.page.0
    }
}

impl<T: Zeroize> Drop for Locked<T> {
    fn drop(&mut self) {
        self.page.0.zeroize();
        self.guard = None;
    }
}

/// As many bytes as there are, in locked memory.
pub(crate) struct LockedBytes {
    /// With room for whole pages somewhere in it.
    room: Box<[u8]>,
    /// Where those begin.
    start: usize,
    len: usize,
    guard: Option<LockGuard>,
}

impl LockedBytes {
    /// Copies bytes in; wiping the original is left to whoever has it.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let whole = bytes.len().next_multiple_of(PAGE);
        let mut room = vec![0; whole + PAGE].into_boxed_slice();
        let start = room.as_ptr().align_offset(PAGE);
        // Locked first: no secret is in them before.
        let guard = if whole == 0 { None } else { lock(&room[start..start + whole]) };
        room[start..start + bytes.len()].copy_from_slice(bytes);
        Self { room, start, len: bytes.len(), guard }
    }

    /// The bytes.
    pub(crate) fn expose(&self) -> &[u8] {
        &self.room[self.start..self.start + self.len]
    }
}

impl Clone for LockedBytes {
    fn clone(&self) -> Self {
        Self::new(self.expose())
    }
}

impl Drop for LockedBytes {
    fn drop(&mut self) {
        self.room.zeroize();
        self.guard = None;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What the kernel says of the pages that a value lies in.
    fn locked_at<T: ?Sized>(value: &T) -> u64 {
        let address = std::ptr::from_ref(value).cast::<u8>() as usize;
        let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in smaps.lines() {
            if let Some((from, to)) = line.split_once(' ').and_then(|(range, _)| range.split_once('-')) {
                let bounds = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16));
                if let (Ok(from), Ok(to)) = bounds {
                    inside = (from..to).contains(&address);
                }
            } else if inside && let Some(kib) = line.strip_prefix("Locked:") {
                return kib.trim().trim_end_matches(" kB").parse().unwrap();
            }
        }
        panic!("the kernel knows no mapping there");
    }

    #[test]
    fn what_is_kept_is_locked_and_reads_back() {
        let bytes = LockedBytes::new(&[7; 2 * PAGE + 5]);
        assert_eq!(bytes.expose(), [7; 2 * PAGE + 5]);
        assert!(bytes.guard.is_some() && refused().is_none());
        assert_eq!(locked_at(bytes.expose()), 3 * PAGE as u64 / 1024);
        let value = Locked::new([9; 32]);
        let copy = value.clone();
        assert_eq!((*value, *copy), ([9; 32], [9; 32]));
        assert!(locked_at(&*value) > 0 && locked_at(&*copy) > 0);
        // Another that goes unlocks no page of this one.
        drop(copy);
        assert!(locked_at(&*value) > 0);
        assert!(LockedBytes::new(&[]).expose().is_empty());
    }

    #[test]
    fn a_page_holds_one_secret_only() {
        let values: Vec<_> = (0..4_u8).map(|byte| Locked::new([byte; 32])).collect();
        let mut pages: Vec<_> = values.iter().map(|value| std::ptr::from_ref(&**value) as usize / PAGE).collect();
        pages.sort_unstable();
        pages.dedup();
        assert_eq!((pages.len(), size_of::<Page<[u8; 32]>>()), (4, PAGE));
    }
}

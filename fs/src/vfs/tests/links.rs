//! The link table that is published has what has a name in the tree, and nothing else.

use super::*;

impl Bed {
    /// A file with a second name.
    fn linked(&self, name: &str, other: &str, content: &[u8]) -> u64 {
        let ino = self.file(ROOT, name, content);
        self.vfs.link(ino, ROOT, other.as_bytes()).unwrap();
        ino
    }

    fn unlink(&self, name: &str) {
        self.vfs.unlink(ROOT, name.as_bytes()).unwrap();
    }

    fn rows(&self) -> usize {
        self.remote.rows(VOLUME)
    }
}

#[test]
fn a_file_that_is_open_and_has_no_name_any_more_has_no_row() {
    for kernel_knows in [false, true] {
        let bed = Bed::new();
        let bed = if kernel_knows { bed.mounted() } else { bed };
        let ino = bed.linked("server", "server-1", b"runs");
        bed.publish().unwrap();
        assert_eq!(bed.rows(), 1);
        bed.vfs.open_file(ME, ino, RO, false).unwrap();
        bed.unlink("server");
        bed.unlink("server-1");
        bed.publish().unwrap();
        assert_eq!(bed.rows(), 0);
        bed.vfs.release(ino, RO).unwrap();
        if kernel_knows {
            bed.vfs.forget(ino, 1_000);
        }
        bed.publish();
        let bed = bed.restart();
        assert_eq!((bed.publish(), bed.rows()), (None, 0));
        bed.assert_sound();
    }
}

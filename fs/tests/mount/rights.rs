//! Who may do what, where the kernel and the tree must agree on it at once.

use super::{MountHandle, NOBODY, ROOT_USER, as_several_users, both, shell};

#[test]
fn a_program_that_somebody_else_wrote_to_is_not_setuid_any_more() {
    as_several_users(|bed| {
        let root = |script: &str| shell(&bed, ROOT_USER, script).unwrap_or_else(|| panic!("failed: {script}"));
        let profile = bed.mounted.as_ref().map(MountHandle::profile);
        for write in [
            "dd if=/dev/zero of=id bs=1 seek=9 count=1 conv=notrunc status=none",
            "printf x >> id",
            "fallocate -l 200000 id",
        ] {
            root("rm -f id; cp $(command -v id) id; chmod 4777 id; ./id -u");
            // The mode alone: a look at all attributes would have the kernel ask for them.
            assert_eq!(root("stat -c %a id"), "4777\n");
            shell(&bed, NOBODY, write).unwrap();
            assert_eq!(root("stat -c %a id"), "777\n", "{write}, {profile:?}");
            assert_eq!(shell(&bed, NOBODY, "./id -u").unwrap(), "65534\n", "{write}, {profile:?}");
        }
    });
}

/// In passthrough a write passes the agent by; who holds the file open need not be able to do more than read it.
#[test]
fn a_program_is_not_setuid_any_more_however_it_was_open_when_it_was_written_to() {
    as_several_users(|bed| {
        let root = |script: &str| shell(&bed, ROOT_USER, script).unwrap_or_else(|| panic!("failed: {script}"));
        let profile = bed.mounted.as_ref().map(MountHandle::profile);
        root("chmod 777 .");
        let new = "rm -f id; cp $(command -v id) id; chmod 777 id";
        // Somebody reads it meanwhile. It is run before anybody asks for its mode.
        root(&format!("{new}; chmod 4777 id; ./id -u"));
        let script = "exec 3<id; printf x >>id; ./id -u; stat -c %a id";
        assert_eq!(shell(&bed, NOBODY, script).unwrap(), "65534\n777\n", "{profile:?}");
        // It became setuid after it was opened for writing.
        root(new);
        let script = "exec 4>>id; touch ready; while [ ! -e go ]; do sleep 0.01; done
                      printf x >&4; exec 4>&-; ./id -u; stat -c %a id";
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| shell(&bed, NOBODY, script));
            root("while [ ! -e ready ]; do sleep 0.01; done; chmod 4777 id; stat -c %a id; touch go");
            assert_eq!(writer.join().unwrap().unwrap(), "65534\n777\n", "{profile:?}");
        });
        // Who copies such a program has it open while it becomes one, and writes no more.
        root(&format!("{new}; chmod 4755 id; cp -p id copy; tar cf - id | (mkdir -p out; tar xpf - -C out)"));
        assert_eq!(root("stat -c %a copy out/id; ./copy -u; out/id -u"), "4755\n4755\n0\n0\n", "{profile:?}");
    });
}

#[test]
fn a_pipe_without_a_name_is_looked_at_and_changed() {
    both(|bed| {
        let script = "mkfifo pipe; exec 3<>pipe; rm pipe; echo through >&3; chmod 600 /dev/fd/3; head -n 1 <&3
                      stat -L -c '%h %a %F' /dev/fd/3";
        let user = rustix::process::geteuid().as_raw();
        assert_eq!(shell(bed, user, script).unwrap(), "through\n0 600 fifo\n");
    });
}

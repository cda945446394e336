//! Real programs, in mounts of both profiles. Nothing here asks a registry: all input is made or on this machine.
#![allow(clippy::unwrap_used)]

use anyhow::{Result, ensure};
use hypernet_kit::machine::{Need, has};
use hypernet_posix::{Mounted, Profile};

/// Runs a script in a fresh mount of each profile.
fn works(script: &str) -> Result<()> {
    if has(&[Need::Fuse]) {
        for profile in Profile::all() {
            Mounted::new(profile)?.sh(script)?;
        }
    }
    Ok(())
}

#[test]
fn git_clones_rebases_collects_and_finds_nothing_wrong() -> Result<()> {
    works(
        r#"
        export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
        export GIT_CONFIG_GLOBAL=/dev/null
        git init -q -b main one; cd one
        for dir in $(seq 20); do
            mkdir -p "d$dir/deep"
            for file in $(seq 50); do echo "$dir $file" >"d$dir/deep/f$file"; done
        done
        git add .; git commit -q -m all
        git switch -q -c side
        for n in $(seq 10); do echo "side $n" >>d1/deep/f1; git commit -q -a -m "side $n"; done
        git switch -q main
        git mv d2 moved; echo more >>moved/deep/f3; git commit -q -a -m moved
        git rebase -q main side
        [ "$(git log --oneline | wc -l)" = 12 ]
        git repack -q -a -d; git gc -q --prune=now
        git fsck --strict --full
        cd ..; git clone -q --no-local one two; cd two
        git checkout -q side; git fsck --full
        [ -z "$(git status --porcelain)" ]
        diff -r --exclude .git ../one .
        git worktree add -q ../three main; [ -d ../three/moved ]
        "#,
    )
}

/// A crate of this very build, without what only its developers need, so that it needs no others.
#[test]
fn cargo_builds_a_real_crate_and_then_nothing() -> Result<()> {
    works(
        r#"
        export CARGO_HOME=${CARGO_HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)/.rustup}
        export CARGO_TARGET_DIR="$PWD/target"
        from=$(ls -d "$CARGO_HOME"/registry/src/*/data-encoding-2.* | tail -1)
        cp -r "$from" crate; cd crate; rm -f Cargo.lock .cargo-ok
        awk '/^\[/ { keep = !/dev-dependencies|^\[\[(bench|test)|profile/ } keep' Cargo.toml >new; mv new Cargo.toml
        echo '[workspace]' >>Cargo.toml
        cargo build --offline --release
        touch ../before
        said=$(cargo build --offline --release 2>&1)
        ! grep Compiling <<<"$said"
        echo '// changed' >>src/lib.rs
        said=$(cargo build --offline --release 2>&1)
        grep Compiling <<<"$said"
        "#,
    )
}

#[test]
fn npm_installs() -> Result<()> {
    works(
        r#"
        mkdir -p dep/lib app
        for n in $(seq 500); do echo "exports.n = $n" >"dep/lib/$n.js"; done
        echo 'for (let n = 1, sum = 0; n <= 500; n++) { sum += require("./lib/" + n).n; exports.sum = sum }' >dep/index.js
        printf '#!/usr/bin/env node\nconsole.log(require("./index").sum)\n' >dep/run.js
        echo '{"name": "dep", "version": "1.0.0", "main": "index.js", "bin": {"sum": "run.js"}}' >dep/package.json
        tar=$(cd dep; npm pack --silent --pack-destination ..)
        cd app; echo '{"name": "app", "version": "1.0.0"}' >package.json
        npm install --offline --no-audit --no-fund --silent --cache ../cache "../$tar"
        [ "$(node -e 'console.log(require("dep").sum)')" = 125250 ]
        [ "$(node_modules/.bin/sum)" = 125250 ]
        rm -rf node_modules; npm ci --offline --no-audit --no-fund --silent --cache ../cache
        [ "$(find node_modules/dep/lib -name '*.js' | wc -l)" = 500 ]
        "#,
    )
}

#[test]
fn sqlite_keeps_a_database_in_wal_mode_through_kill_9() -> Result<()> {
    works(
        r#"
        sqlite3 db 'PRAGMA journal_mode = wal; CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c INTEGER);
            CREATE INDEX i ON t (c, b); CREATE TABLE counted (n)' >/dev/null
        {
            echo 'PRAGMA synchronous = full;'
            for n in $(seq 100000); do
                echo "BEGIN; INSERT INTO t (b, c) VALUES (hex(randomblob(50)), $n % 7);"
                echo "INSERT INTO counted VALUES ($n); COMMIT; SELECT $n;"
            done
        } >work.sql
        mkfifo said; sqlite3 db <work.sql >said & pid=$!
        # It says each number after its commit.
        n=0; while read -r n && [ "$n" -lt 500 ]; do :; done <said
        kill -9 $pid 2>/dev/null || true; wait $pid || true
        [ "$(sqlite3 db 'PRAGMA integrity_check')" = ok ]
        [ "$(sqlite3 db 'SELECT count(*) >= 500 AND count(*) = max(n) AND count(*) = (SELECT count(*) FROM t) FROM counted')" = 1 ]
        # What its own speed test does: inserts, indexes, updates, joins, deletes, and all of it packed again.
        sqlite3 db "
            BEGIN; WITH RECURSIVE r (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM r WHERE n < 50000)
            INSERT INTO t (b, c) SELECT printf('%d text', n * 7919 % 50000), n FROM r; COMMIT;
            CREATE INDEX j ON t (b); UPDATE t SET c = c + 1 WHERE a % 3 = 0; DELETE FROM t WHERE a % 5 = 0;
            SELECT count(*) FROM t x JOIN t y ON x.a = y.c WHERE x.c < 20000; VACUUM; PRAGMA wal_checkpoint(truncate)" >/dev/null
        [ "$(sqlite3 db 'PRAGMA integrity_check')" = ok ]
        "#,
    )
}

/// The sums of the four tables of pgbench are equal in every consistent state.
#[test]
fn postgresql_recovers_from_kill_9() -> Result<()> {
    if !has(&[Need::Fuse, Need::Root]) {
        return Ok(());
    }
    works(
        r#"
        bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1); mkdir data sock; chown postgres data sock
        as() { setpriv --reuid=postgres --regid=postgres --init-groups env -i PATH="$bin:$PATH" HOME=/tmp PGHOST="$PWD/sock" LC_ALL=C.UTF-8 "$@"; }
        as initdb -D data >/dev/null
        start() { as pg_ctl -D data -w -l data/log -o "-k $PWD/sock -c listen_addresses=''" start >/dev/null || { cat data/log >&2; exit 1; }; }
        stop() { as pg_ctl -D data -m immediate stop >/dev/null 2>&1 || true; }
        trap stop EXIT
        start
        as createdb bench; as pgbench -q -i -s 2 bench 2>/dev/null
        as pgbench -n -c 4 -j 2 -T 600 bench >/dev/null 2>&1 & load=$!
        # It has written a while when there are some hundred transactions.
        until [ "$(as psql -qAt bench -c 'SELECT count(*) > 300 FROM pgbench_history')" = t ]; do :; done
        before=$(as psql -qAt bench -c 'SELECT count(*) FROM pgbench_history')
        master=$(head -1 data/postmaster.pid); all="$master $(pgrep -P "$master")"
        for pid in $all; do kill -9 "$pid" || true; done
        for pid in $all; do while kill -0 "$pid" 2>/dev/null && ! grep -q '^State:.Z' "/proc/$pid/status"; do :; done; done
        wait $load || true
        rm -f data/postmaster.pid sock/.s.PGSQL*; start
        as psql -qAt bench -c "
            SELECT (SELECT count(*) FROM pgbench_history) >= $before, count(DISTINCT sum) = 1 FROM (
            SELECT sum(abalance) FROM pgbench_accounts UNION ALL SELECT sum(tbalance) FROM pgbench_tellers
            UNION ALL SELECT sum(bbalance) FROM pgbench_branches UNION ALL SELECT sum(delta) FROM pgbench_history) s" >sums
        [ "$(cat sums)" = 't|t' ] || { cat sums >&2; exit 1; }
        as pg_ctl -D data -w stop >/dev/null; as pg_controldata data | grep -q 'shut down'
        as "$bin/pg_checksums" --check -D data >/dev/null 2>&1 || as pg_controldata data | grep -q 'checksum version: *0'
        "#,
    )
}

#[test]
fn rsync_has_nothing_to_do_the_second_time() -> Result<()> {
    works(
        r#"
        mkdir -p from/d/e; cd from
        seq 100000 >d/big; head -c 300000 /dev/urandom >d/random; ln d/big d/e/hard; ln -s ../d soft; ln -s nowhere dangling
        truncate -s 1M d/sparse; printf end >>d/sparse; mkfifo pipe; touch -d '1999-12-31 23:59:59.123456789' d/e/old
        chmod 4751 d/random; setfattr -n user.note -v 'a value' d/big; : >"$(printf 'new\nline')"; chmod 700 d/e
        setfacl -m u:65534:r d/big 2>/dev/null || true
        cd ..; outside=$(mktemp -d); trap 'rm -rf "$outside"' EXIT
        rsync -aHAX --inplace from/ "$outside/"
        [ -z "$(rsync -aHAX --inplace -i --checksum from/ "$outside/")" ]
        rsync -aHAX --inplace "$outside/" to/
        said=$(rsync -aHAX --inplace -i --checksum "$outside/" to/); [ -z "$said" ] || { echo "$said" >&2; exit 1; }
        echo more >>from/d/big; rsync -aHAX --inplace from/ to/
        said=$(rsync -aHAX --inplace -i --checksum from/ to/); [ -z "$said" ] || { echo "$said" >&2; exit 1; }
        [ "$(stat -c %h to/d/e/hard)" = 2 ]; cmp from/d/big to/d/e/hard
        "#,
    )
}

#[test]
fn tar_and_cp_bring_everything_along() -> Result<()> {
    works(
        r#"
        mkdir -p a/b; seq 50000 >a/b/file; ln a/b/file a/hard; ln -s b a/link; chmod 640 a/b/file
        setfattr -n user.x -v y a/b/file; touch -d '2001-02-03 04:05:06.7' a/b/file; truncate -s 5M a/sparse
        tar --xattrs --sparse -cf all.tar a; mkdir out; tar --xattrs -xf all.tar -C out; diff -r --no-dereference a out/a
        [ "$(stat -c '%a %h %Y' out/a/b/file)" = "$(stat -c '%a %h %Y' a/b/file)" ]
        [ "$(getfattr --only-values -n user.x out/a/b/file)" = y ]
        cp -a --reflink=auto a copy; diff -r --no-dereference a copy; cmp a/b/file copy/hard
        [ "$(stat -c '%a %h %y' copy/b/file)" = "$(stat -c '%a %h %y' a/b/file)" ]
        cp --sparse=always a/sparse thin; [ "$(stat -c %b thin)" -lt 64 ]; cmp a/sparse thin
        "#,
    )
}

#[test]
fn editors_save() -> Result<()> {
    works(
        r#"
        printf 'one\ntwo\nthree\n' >text; chmod 640 text; ln -s text link
        vim.tiny -es -u NONE -c '%s/two/2/' -c wq text; [ "$(cat text)" = "$(printf 'one\n2\nthree')" ]
        vim.tiny -es -u NONE -c 'set writebackup backupcopy=no' -c 'normal Gofour' -c wq text
        [ "$(tail -1 text)" = four ]; [ "$(stat -c %a text)" = 640 ]
        sed -i s/one/1/ text; [ "$(head -1 link)" = 1 ]; [ "$(stat -c %a text)" = 640 ]
        sed -i --follow-symlinks s/three/3/ link; [ -L link ]; grep -q 3 text
        "#,
    )
}

#[test]
fn mail_is_delivered_by_many_at_once() -> Result<()> {
    works(
        r#"
        mkdir -p box/tmp box/new box/cur
        deliver() {
            for n in $(seq 50); do
                name="$1.$n"; echo "mail $name" >"box/tmp/$name"; sync "box/tmp/$name"
                ln "box/tmp/$name" "box/new/$name"; rm "box/tmp/$name"
            done
        }
        for who in a b c d; do deliver $who & done
        read=0
        while [ $read -lt 200 ]; do
            for mail in box/new/*; do
                [ -e "$mail" ] || continue
                name=${mail##*/}; [ "$(cat "$mail")" = "mail $name" ]; mv "$mail" "box/cur/$name:2,S"; read=$((read + 1))
            done
        done
        wait; [ "$(ls box/cur | wc -l)" = 200 ]; [ -z "$(ls box/new box/tmp | grep mail || true)" ]
        "#,
    )
}

#[test]
fn find_runs_and_inotifywait_hears() -> Result<()> {
    works(
        r#"
        mkdir -p t; for n in $(seq 300); do mkdir "t/$n"; echo $n >"t/$n/f"; done
        find t -name f -exec sh -c 'mv "$1" "$1.moved"' _ {} \;
        [ "$(find t -name '*.moved' -size -2 -newermt '2020-01-01' | wc -l)" = 300 ]
        find t -depth -delete; [ ! -e t ]
        mkdir w; mkfifo ready
        inotifywait -q -m -e create,modify,close_write,moved_to,delete --format '%e %f' w >events 2>ready & pid=$!
        exec 3<ready
        until grep -q inotify "/proc/$pid/fdinfo/"* 2>/dev/null && grep -q '^inotify wd' "/proc/$pid/fdinfo/"* 2>/dev/null; do :; done
        echo x >w/a; mv w/a w/b; rm w/b
        until grep -q 'DELETE b' events; do :; done
        kill $pid
        for event in 'CREATE a' 'MODIFY a' 'CLOSE_WRITE,CLOSE a' 'MOVED_TO b'; do grep -q "$event" events; done
        "#,
    )
}

#[test]
fn a_thousand_processes_append_to_one_file() -> Result<()> {
    works(
        r#"
        for n in $(seq 1000); do printf '%0100d\n' "$n" >>log & done; wait
        [ "$(wc -l <log)" = 1000 ]; [ "$(stat -c %s log)" = 101000 ]; [ "$(sort -u log | wc -l)" = 1000 ]
        "#,
    )
}

/// Those of its filesystem class that the kernel passes on, each for a moment, with its own checks on.
#[test]
fn stress_ng_finds_nothing() -> Result<()> {
    if !has(&[Need::Fuse]) {
        return Ok(());
    }
    for profile in Profile::all() {
        let mounted = Mounted::new(profile)?;
        let stressors = "access,chdir,chmod,chown,copy-file,dentry,dir,dirdeep,dup,fallocate,fcntl,fiemap,file-ioctl,\
            filename,flock,fpunch,fsize,fstat,getdent,hdd,inode-flags,inotify,io,iomix,lease,link,locka,lockf,lockofd,\
            mknod,open,rename,seek,sendfile,symlink,sync-file,touch,utime,xattr"
            .replace(char::is_whitespace, "");
        for stressor in stressors.split(',') {
            let said = mounted.sh(&format!(
                "stress-ng --temp-path \"$PWD\" --verify --timeout 1 --quiet --{stressor} 2 --{stressor}-ops 300 2>&1 || echo FAILED"
            ))?;
            ensure!(!said.contains("FAILED"), "{stressor} in a {} mount: {said}", profile.name());
        }
        mounted.sh("[ -z \"$(ls)\" ] || { ls -la; exit 1; }")?;
    }
    Ok(())
}

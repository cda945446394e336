//! The examples that `--help` shows and the manual pages repeat.

/// Joins the lines of an Examples section.
macro_rules! examples {
    ($name:ident: $($line:literal)+) => {
        pub(crate) const $name: &str = concat!("Examples:", $("\n  ", $line),+);
    };
}

examples! { HN:
    "hn init && hn up            a new identity, then the agent and its mount"
    "cp -a ~/photos /hypernet/   ordinary tools work on the mount"
    "hn sync                     returns when everything is on the mesh"
    "hn status                   what is running, and how safe the data is"
}
examples! { INIT:
    "hn init                                  a new identity on a new mesh"
    "hn init --join 'hypernet:join/...'       a new identity on the mesh of an invite"
    "hn init --passphrase                     seal the keystore by a passphrase"
    "hn init --keyring                        keep its key in the keyring of the desktop"
    "hn init --no-confirm --json              in a script, which keeps the 24 words (.phrase) itself"
    "hn init --storage-only --donate 50G --newcomers 100   store for others only, for whoever comes"
}
examples! { PASSPHRASE:
    "hn passphrase               a new passphrase, typed twice; the one from before opens nothing more"
    "hn passphrase --keyring     the desktop's keyring opens it when you have logged in"
    "hn passphrase --key-file    a new key in a file: whoever reads HN_HOME opens it"
}
examples! { INVITE:
    "hn invite                       print a link for `hn join` and `hn init --join`"
    "hn invite --json | jq -r .link  the same in a script"
}
examples! { JOIN:
    "hn join 'hypernet:join/...'     quote the link, the shell knows `&` and `?`"
}
examples! { UP:
    "hn up                        start the agent and mount at /hypernet, else ~/hypernet"
    "hn up --mount ~/net          mount there"
    "hn up --no-mount             only run"
    "hn up --donate 50G           give others 50 GiB from now on"
    "hn up --cache 20G            keep 20 GiB of local copies of what the mesh has, from now on"
    "hn up --hold                 upload nothing until `hn sync` or `hn up` again"
}
examples! { DOWN:
    "hn down                      stop; what is not on the mesh yet stays on this device"
}
examples! { STATUS:
    "hn status"
    "hn status --json | jq .volume.health"
}
examples! { PEERS:
    "hn peers                                  all peers met, how each is reached, and why"
    "hn peers --wait 10 --timeout 60           return when 10 peers that store are connected"
    "hn peers --json | jq '.[] | select(.connected) | .peer'"
    "hn peers --json | jq -r '.[] | select(.path == \"relayed\") | .why'"
}
examples! { DONATE:
    "hn donate                               who has how much of what you give"
    "hn donate --space 50G                   give others 50 GiB from now on"
    "hn donate stop --wait                   hand over what others have here, before this machine goes"
    "hn donate --newcomers 25                a quarter of it for peers that you do not know and that store nothing for you"
    "hn donate --json | jq '.shares[] | select(.depositor == \"newcomer\") | .used'"
}
examples! { DONATE_STOP:
    "hn donate stop                          take in nothing new, and have others move what is here"
    "hn donate stop --wait && hn down        the same, and go when all of it is elsewhere"
    "hn donate stop --json | jq '.shards'"
}
examples! { DONATE_RESUME:
    "hn donate resume                        give again what was given before"
}
examples! { SYNC:
    "hn sync                      make everything durable, then return"
    "hn sync /hypernet/photos     the same, and say how durable this is"
    "hn sync --json | tail -n 1   the report, for a script"
}
examples! { MOUNT:
    "hn mount                     where it was mounted last, else /hypernet or ~/hypernet"
    "hn mount ~/net"
    "hn mount --no-passthrough    let the kernel cache writes, even as root"
    "hn mount --branch try ~/try"
    "hn mount --snapshot HEAD~3 /mnt/then"
}
examples! { UMOUNT:
    "hn umount                    all of it; the agent goes on running"
    "hn umount ~/try"
}
examples! { RECOVER:
    "hn recover --join 'hypernet:join/...'               ask for the 24 words"
    "hn recover --join LINK --phrase-stdin < words.txt   the same in a script"
    "hn recover --join LINK --device laptop              what this device synced last"
    "hn recover --join LINK --guardians                  by people who have shares of the words, one after another"
    "HN_HOME=/tmp/b hn recover --from /tmp/a             by a device of yours, whose HN_HOME is /tmp/a"
}
examples! { DEVICE:
    "hn device list                 who has published what"
    "hn device add                  show a code, to be entered on another machine"
    "hn device join CODE --join LINK    on that machine"
    "hn device revoke old-laptop    take one off the list"
    "hn device renew                put right by the words what an unknown device has spoiled"
}
examples! { DEVICE_ADD:
    "hn device add                  then enter what it shows on the other machine, and compare seven pictures"
    "hn device add --timeout 60     for one minute"
    "hn device add --json --words-stdin    in a program, which reads the other side's words and writes them here"
}
examples! { DEVICE_JOIN:
    "hn device join 'hypernet:pair/...'                          the link that `hn device add` shows there"
    "hn device join mvqx-7k2p-wd3h-4c5a --join 'hypernet:join/...'    its code, and a link of `hn invite`"
    "hn device join - --json --words-stdin    in a program, which writes the link, and then the other side's words"
    "hn device join                                              ask for the code, or go on where this machine was cut off"
}
examples! { ID:
    "hn id                          give it to those who are to find you"
    "hn id --json | jq -r .address  in a script"
    "hn id --qr > id.txt            with the picture"
}
examples! { CONTACT:
    "hn contact add hn1... --name anna    by the address that `hn id` prints there"
    "hn contact verify anna               and make sure of her, together with her"
    "hn contact list"
}
examples! { CONTACT_ADD:
    "hn contact add hn1... --name anna"
}
examples! { CONTACT_LIST:
    "hn contact list"
    "hn contact list --json | jq '.[] | select(.verified) | .name'"
}
examples! { CONTACT_REMOVE:
    "hn contact remove anna"
}
examples! { CONTACT_VERIFY:
    "hn contact verify anna                        show a code; she enters it, and both compare seven pictures"
    "hn contact verify bob mvqx-7k2p-wd3h-4c5a     with the code that bob was shown"
    "hn contact verify bob -                       ask for it, and do not show it in the list of processes"
}
examples! { DEVICE_LIST:
    "hn device list                   who has published what, and what of it is not in this tree"
    "hn device list --json | jq '.[] | select(.here | not) | .name'"
}
examples! { DEVICE_REVOKE:
    "hn device revoke old-laptop            one of which all is part of another device's head"
    "hn device revoke --force old-laptop    whatever it published"
    "hn device revoke --phrase stolen       with the 24 words: also when that device has taken this one off"
}
examples! { DEVICE_RENEW:
    "hn device renew                               ask for the 24 words, and say who is on the list"
    "hn device renew --phrase-stdin < words.txt    the same in a script"
    "hn device renew --json --phrase-stdin < words.txt | jq -r '.devices[].name'"
}
examples! { GUARDIANS:
    "hn guardians set 2-of-3 anna ben carl    any two of them can bring your words back"
    "hn guardians list                        who they are, and for whom you are one"
    "hn guardians help anna CODE              she has lost everything, and `hn recover --guardians` shows her a code"
}
examples! { GUARDIANS_SET:
    "hn guardians set 2-of-3 anna ben carl    ask for the 24 words, and share them among three contacts"
    "hn guardians set 3-of-5 anna ben carl dora emil --phrase-stdin < words.txt"
}
examples! { GUARDIANS_LIST:
    "hn guardians list"
    "hn guardians list --json | jq -r '.held[].name'"
}
examples! { GUARDIANS_HELP:
    "hn guardians help anna                        ask for the code that she reads to you, and compare seven pictures"
    "hn guardians help anna mvqx-7k2p-wd3h-4c5a    with the code that anna reads to you; then compare seven pictures"
    "hn guardians help anna 'hypernet:pair/...'    with the link that she is shown"
    "hn guardians help 5f0c81d2a7                  somebody who is no contact any more, by the id of `hn guardians list`"
}
examples! { GUARDIANS_CLEAR:
    "hn guardians clear"
}
examples! { CUSTODIAN:
    "hn custodian offer --name anna            on a machine that runs all day: print a ticket for anna"
    "hn custodian add hnc1... --name nas       there, anna appoints it by that ticket"
    "hn custodian                              who looks after your files, and whose are looked after here"
}
examples! { CUSTODIAN_ADD:
    "hn custodian add \"$(ssh nas hn custodian offer --name me)\" --name nas"
}
examples! { CUSTODIAN_REMOVE:
    "hn custodian remove nas"
}
examples! { CUSTODIAN_OFFER:
    "hn custodian offer --name anna"
    "hn custodian offer --name anna --json | jq -r .ticket"
}
examples! { CUSTODIAN_WITHDRAW:
    "hn custodian withdraw anna"
}
examples! { CUSTODIAN_LIST:
    "hn custodian list"
    "hn custodian list --json | jq '.served[] | [.name, .segments, .due]'"
}
examples! { HEALTH:
    "hn health                           each volume, and why it is so"
    "hn health /hypernet/photos -v       one of them, with its segments by margin"
    "hn health --json | jq '.volumes[].safety.least_margin'"
}
examples! { GC:
    "hn gc --dry-run                     what could be given back, and what that waits for"
    "hn gc                               give it back now"
    "hn gc --json | jq '[.[].freed_bytes] | add'"
}
examples! { VOLUME:
    "hn volume make /hypernet/photos     a volume of its own, where it is"
    "hn volume list                      where each begins, and what of it the mesh lacks"
}
examples! { VOLUME_LIST:
    "hn volume list"
    "hn volume list --json | jq -r '.[].path'"
}
examples! { VOLUME_MAKE:
    "hn volume make /hypernet/photos"
}
examples! { SHARE:
    "hn share /hypernet/photos --with anna               she reads it"
    "hn share /hypernet/book --with anna --with ben --write"
    "hn share /hypernet/photos --public --until 7days    a link that reads it for a week"
    "hn share /hypernet/notes --public --write           a link by which anybody who has it writes, too"
    "hn share /hypernet/photos                           who has a part in it"
}
examples! { UNSHARE:
    "hn unshare /hypernet/photos --with anna   she reads nothing that is written from now on"
    "hn unshare /hypernet/photos --with anna --rekey   and what was written before is sealed anew"
    "hn unshare /hypernet/photos --all-links"
}
examples! { SHARES:
    "hn shares"
    "hn shares --json | jq -r '.offers[].share'"
}
examples! { ATTACH:
    "hn attach anna/photos /hypernet/annas-photos"
    "hn attach 'hn:hns1...' /hypernet/public      what a link leads to"
}
examples! { DETACH:
    "hn detach /hypernet/annas-photos"
    "hn detach --discard /hypernet/annas-photos   with what is not synced, and nobody takes any more"
}
examples! { CACHE:
    "hn cache drop                forget all local copies of what is on the mesh"
}
examples! { CACHE_DROP:
    "hn cache drop                      forget all local copies of what is on the mesh"
    "hn cache drop /hypernet/photos     only what is below it"
    "hn cache drop --force              also what too few peers are here to give back now"
}
examples! { FSCK:
    "hn fsck                      check databases and working tree on this device"
    "hn fsck --verify             and ask every holder whether it still has its shards"
    "hn fsck --repair             mend what can be mended on this device"
}
examples! { SNAP:
    "hn snap -m before-the-upgrade          of the volume that one stands in"
    "hn snap /hypernet/photos -m sorted     of the volume that this is in"
    "hn snap prune --keep-last 10 -n        which would not stay"
}
examples! { SNAP_PRUNE:
    "hn snap prune 1a2b3c4d                        let go of one"
    "hn snap prune --keep-last 10 --keep-daily 7   of those that a policy has taken, keep so many"
    "hn snap prune --keep-weekly 52 --all -n       say which would go, also of those taken by hand"
}
examples! { BRANCH:
    "hn branch try                      begin with what is there now"
    "hn branch fix HEAD~2               begin with a snapshot"
    "hn branch                          all of them"
    "hn branch --delete try             let go of one that was merged"
}
examples! { SWITCH:
    "hn switch try"
    "hn switch main"
}
examples! { MERGE:
    "hn merge try                                  into what one stands in"
    "hn merge main /hypernet/.branches/try         what the main volume has become, into the branch"
}
examples! { CONFLICTS:
    "hn conflicts                                  in the volume that one stands in"
    "hn conflicts /hypernet/photos"
    "hn conflicts --json | jq -r '.[].path'"
}
examples! { RESOLVE:
    "hn resolve notes.txt --keep file              what is beside it goes"
    "hn resolve notes.txt --keep version           what is beside it takes its place"
    "hn resolve notes.txt --keep both              two files from now on"
    "hn resolve --all --keep file                  in the whole volume; or name a directory"
}
examples! { POLICY:
    "hn policy                                       of the volume that one stands in"
    "hn policy --hourly 24 --daily 7 --weekly 4      one each hour; old ones are thinned"
    "hn policy /hypernet/photos --weekly 52"
    "hn policy --off                                 none from now on; those that there are stay"
}
examples! { LOG:
    "hn log                       all of the volume that one stands in"
    "hn log --oneline -n 10"
    "hn log notes.txt             when this has changed; it need not be there any more"
    "hn log --json | jq -r '.[].id'"
}
examples! { SHOW:
    "hn show                      the newest"
    "hn show v1"
    "hn show '@{yesterday}' src   what it has changed in a directory"
}
examples! { DIFF:
    "hn diff                      what has changed since the newest snapshot"
    "hn diff HEAD~2..HEAD src     in a directory, over two snapshots; `hn diff HEAD~2 HEAD src` is the same"
    "hn diff --stat '@{yesterday}'"
    "hn diff v1..v2 | patch -p1   make the same changes elsewhere"
    "hn diff v1..v2 --name-only --json | jq -r '.[] | select(.before == null) | .after.path'"
}
examples! { RESTORE:
    "hn restore HEAD~ notes.txt            as it was one snapshot ago"
    "hn restore '@{yesterday}' src         a directory, with all that is in it"
    "hn restore v1 src --to /tmp           a copy of it as /tmp/src"
}
examples! { REVERT:
    "hn revert HEAD               what the newest snapshot has changed is undone"
    "hn revert v1 src -n          what would be undone in a directory"
    "hn revert 1a2b3c4d --no-snap | grep '^D'"
}
examples! { TAG:
    "hn tag                       all names"
    "hn tag v1                    the newest snapshot is v1 from now on"
    "hn tag v1 HEAD~3 --force     another one is"
    "hn tag --delete v1"
}
examples! { VERIFY:
    "hn verify                    the newest"
    "hn verify v1 --json | jq .problems"
}
examples! { DEV:
    "hn dev mesh up --peers 10    ten storage peers on this machine, to try things out"
}
examples! { MESH:
    "hn dev mesh up --peers 10    start what is missing of ten storage peers; prints the invite link"
    "hn dev mesh kill 3           kill three of them as a power cut would"
    "hn dev mesh revive --all     start the dead ones again"
    "hn dev mesh down             stop all of them; their data stays"
}
examples! { MESH_UP:
    "hn dev mesh up --peers 10"
    "hn dev mesh up --peers 4 --dir /tmp/mesh --donate 1G"
    "hn init --join \"$(hn dev mesh up --peers 10 --json | jq -r .invite)\""
}
examples! { MESH_DOWN:
    "hn dev mesh down"
}
examples! { MESH_KILL:
    "hn dev mesh kill 3           SIGKILL to the three lowest-numbered that run"
    "hn dev mesh kill --peer 7    SIGKILL to number 7"
}
examples! { MESH_REVIVE:
    "hn dev mesh revive           start all dead ones again"
    "hn dev mesh revive 2         only two of them"
}
examples! { MESH_STATUS:
    "hn dev mesh status"
    "hn dev mesh status --json | jq '.peers[] | select(.running | not) | .number'"
}
examples! { COMPLETIONS:
    "hn completions bash > ~/.local/share/bash-completion/completions/hn"
    "hn completions zsh > ~/.zfunc/_hn"
    "hn completions fish > ~/.config/fish/completions/hn.fish"
}
examples! { MAN:
    "hn man ~/.local/share/man/man1"
}

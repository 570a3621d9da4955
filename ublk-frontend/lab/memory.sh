#!/bin/sh
# In a lab guest: the memory example under a file system, under fio with verification, and while devices come and go.
#   cargo build --release -p ublk-frontend --example memory
#   lab/run --kernel 6.12 --share target/release/examples -- /src/ublk-frontend/lab/memory.sh
set -eu
program=${MEMORY:-/share/memory}
work=$(mktemp -d)
mkfifo "$work/in"
failed=0

fail() { echo "FAILED: $*"; failed=1; }
wanted() { [ "$2" = "$3" ] && echo "ok: $1: $2" || fail "$1: $2, wanted $3"; }

# begin OPTIONS...: the program with a pipe to its input
begin() {
    "$program" "$@" <"$work/in" >"$work/out" 2>&1 &
    server=$!
    exec 3>"$work/in"
    until_says "^ready" || { cat "$work/out"; exit 1; }
}
tell() { : >"$work/mark"; wc -l <"$work/out" >"$work/mark"; echo "$*" >&3; }
said() { tail -n +$(($(cat "$work/mark" 2>/dev/null || echo 0) + 1)) "$work/out"; }
until_says() {
    for _ in $(seq 600); do
        said | grep -q "$1\|^error" && { ! said | grep "^error"; return; }
        kill -0 "$server" 2>/dev/null || return 1
        sleep 0.1
    done
    echo "never said $1"; return 1
}
end() {
    kill -TERM "$server"
    wait "$server" || fail "exit code $?"
    exec 3>&-
    grep -q "^bye" "$work/out" || fail "no orderly end"
    grep -E "ERROR|panicked" "$work/out" && fail "errors in the log"
    wanted "devices left" "$(ls /sys/class/ublk-char | wc -l)" 0
    rm -f "$work/mark"
}
threads() { ls /proc/"$server"/task | wc -l; }
descriptors() { ls /proc/"$server"/fd | wc -l; }
wakeups() { cat /proc/"$server"/task/*/status | awk '/ctxt_switches/ { n += $2 } END { print n }'; }

modprobe ublk_drv
uname -r
"$program" --help >/dev/null

echo "== what a newcomer may meet"
sysctl -q kernel.io_uring_disabled=2
"$program" </dev/null >"$work/out" 2>&1 && fail "started without io_uring"
tail -n 1 "$work/out"
sysctl -q kernel.io_uring_disabled=0
mkdir -m 777 /run/ublksrvd && chmod 777 /run/ublksrvd && ln -s /etc/passwd /run/ublksrvd/0000.json
"$program" </dev/null >"$work/out" 2>&1 && fail "started over a planted link"
tail -n 1 "$work/out"
rm -r /run/ublksrvd

echo "== a file system on two queues"
begin --devices 1 --reactors 2 --queues 2 --cache --mib 128
cat /sys/block/ublkb0/queue/write_cache /sys/block/ublkb0/queue/max_sectors_kb /sys/block/ublkb0/queue/nr_requests | xargs echo "write_cache max_sectors_kb nr_requests:"
mkfs.ext4 -q /dev/ublkb0
mkdir -p "$work/mount"
mount /dev/ublkb0 "$work/mount"
dd if=/dev/urandom of="$work/data" bs=1M count=32 status=none
cp "$work/data" "$work/mount/data"
tail -f /dev/null </dev/ublkb0 & reader=$!
tell holders 0; sleep 1; said
kill $reader
tell detach 99; sleep 0.3; said | grep -q "^error" || fail "detach of a device that is not there"
umount "$work/mount"
echo 3 >/proc/sys/vm/drop_caches
mount /dev/ublkb0 "$work/mount"
cmp "$work/data" "$work/mount/data" && echo "ok: data came back" || fail "data differ"
fstrim "$work/mount" && echo "ok: fstrim"
umount "$work/mount"
end

echo "== fio with verification, two devices of two queues on two reactors"
# Depth 512 and 256 requests a disk: tags of 64 and more carry into the offset bit of a copy's position.
begin --devices 2 --reactors 2 --queues 2 --depth 512 --mib 64
run() {
    fio --ioengine=io_uring --direct=1 --verify=crc32c --verify_fatal=1 --group_reporting --minimal --name="$1" \
        --filename=/dev/ublkb0:/dev/ublkb1 --size="$2" --rw="$3" --bs="$4" --iodepth="$5" >"$work/fio" 2>&1 &
    fio=$!
    sleep 2
    workers=$(ps -eLo comm,pid | awk -v p="$server" '$1 ~ /^iou-wrk/ && $2 == p' | wc -l)
    wait $fio && echo "ok: $1" || { fail "$1"; cat "$work/fio"; }
    wanted "io workers during $1" "$workers" 0
}
run rand4k 32M randwrite 4k 32
run deep4k 32M randwrite 4k 512
run seq1m 128M write 1m 32
run mixed 32M randrw 4k-64k 256
tell counters; until_says "reactor 1"; said
end

echo "== copies that fail"
begin --devices 1 --mib 32
tell truncate 0; sleep 0.3
dd if=/dev/ublkb0 of=/dev/null bs=4k count=1 iflag=direct 2>"$work/error" && fail "a failed copy was success"
head -n 1 "$work/error"
dd if=/dev/zero of=/dev/ublkb0 bs=4k count=1 oflag=direct 2>"$work/error" && fail "a failed copy was success"
head -n 1 "$work/error"
end

echo "== one of three goes while two idle, many reactors' queues"
begin --devices 3 --reactors 2 --queues 2 --mib 32
sleep 1
before=$(wakeups); sleep 5; after=$(wakeups)
echo "wake-ups in 5 idle seconds: $((after - before))"
[ $((after - before)) -le 2 ] || fail "an idle reactor wakes up"
fio --ioengine=io_uring --direct=1 --name=other --filename=/dev/ublkb2 --size=32M --rw=randread --bs=4k --iodepth=8 \
    --time_based --runtime=6 --minimal >"$work/fio" 2>&1 &
fio=$!
sleep 1
tell detach 1; until_says "^detached" || fail "detach"; said
[ -e /dev/ublkc1 ] && fail "/dev/ublkc1 is still there"
wait $fio || { fail "I/O on another device"; cat "$work/fio"; }
tell list; sleep 0.5; said
f=$(descriptors) t=$(threads)
tell unstarted; until_says "^device" || fail "a device that never started"; said
tell cycles 20; until_says "^cycles done" || fail "cycles"; said | grep "^detached" | sed -n '1p;$p'
wanted "descriptors after 20 cycles" "$(descriptors)" "$f"
wanted "threads after 20 cycles" "$(threads)" "$t"
tell counters; until_says "reactor 1"; said
end

echo "== many devices, few threads"
begin --devices 24 --reactors 2 --queues 2 --mib 16 --depth 32
echo "threads: $(threads)"
[ "$(ls /sys/block | grep -c ublkb)" = 24 ] || fail "24 disks"
dd if=/dev/ublkb23 of=/dev/null bs=1M iflag=direct status=none || fail "the last disk"
end

echo "== killed, with and without recovery"
for recovery in "" --recovery; do
    begin --devices 2 --mib 32 $recovery
    kill -KILL "$server"; wait "$server" || true
    exec 3>&-
    rm -f "$work/mark"
    sleep 1
    timeout 60 "$program" --sweep || fail "sweep"
    wanted "devices left" "$(ls /sys/class/ublk-char | wc -l)" 0
done

dmesg | grep -E "BUG|WARNING|hung_task|blocked for more|Call Trace|Oops" && fail "the kernel complains"
[ $failed = 0 ] && echo "ALL OK" || echo "SOME FAILED"
exit $failed

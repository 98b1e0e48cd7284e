#!/bin/sh
# The first process of a guest: it runs the steps and tells the console how each ended. `cargo
# xtask kernels` reads there what it requires; nothing else leaves the guest.

/bin/busybox --install -s /bin
export PATH=/bin TMPDIR=/tmp HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm /tmp /root
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /dev/shm
ip link set lo up
ulimit -n 20000
cd /root
. /steps.env

# step NAME COMMAND...: runs it and tells its exit code.
step() {
    name=$1
    shift
    echo "@@ begin $name"
    "$@" 2>&1
    echo "@@ done $name $?"
}

# A server of its own, a load that has to agree with it, and an orderly end.
# serve SERVER LOAD: both are options of `wharf`.
serve() {
    wharf $1 127.0.0.1:7001 >/tmp/server 2>&1 &
    server=$!
    tries=0
    until grep -q "127.0.0.1:7001" /tmp/server; do
        tries=$((tries + 1))
        if [ $tries -gt 300 ] || ! kill -0 $server 2>/dev/null; then
            cat /tmp/server
            kill -KILL $server 2>/dev/null
            return 98
        fi
        usleep 200000
    done
    # Into a file, because on a console it would draw how far it is.
    wharf load $2 127.0.0.1:7001 >/tmp/load 2>&1
    code=$?
    cat /tmp/load
    kill -INT $server
    wait $server
    ended=$?
    cat /tmp/server
    [ $ended -eq 0 ] || return 97
    return $code
}

forbidden() {
    echo 2 >/proc/sys/kernel/io_uring_disabled || return 96
    wharf doctor
    WHARF_TEST_EXPECT_AUTO=poll WHARF_TEST_ONLY=$CHOICE it --test-threads 1 poll/
    code=$?
    echo 0 >/proc/sys/kernel/io_uring_disabled
    return $code
}

step version uname -r
step doctor wharf doctor
step choice env WHARF_TEST_EXPECT_AUTO=uring WHARF_TEST_ONLY=$CHOICE it --test-threads 1 uring/
step units lib driver::uring
step hold serve "hold" "hold --connections 500 --for 2s --expect held=500"
step echo serve "echo" "echo --connections 50 --for 3s"
step direct serve "hold --descriptors direct --max-connections 400" "hold --connections 200 --for 2s --expect held=200"
if [ -e /proc/sys/kernel/io_uring_disabled ]; then
    step forbidden forbidden
fi
step suite env WHARF_TEST_ONLY=$CASES it --test-threads 3 uring/
echo "@@ end"
poweroff -f

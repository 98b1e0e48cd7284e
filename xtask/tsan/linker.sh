#!/bin/sh
# Links a program with the runtime of ThreadSanitizer that comes with a Rust toolchain.
#
# Debian's compiler has none of its own. The runtime comes first, and all of it: what it replaces
# in the C library nobody refers to by name. A request for the C compiler's own, which is of another
# version, is taken out.
count=$#
while [ "$count" -gt 0 ]; do
    argument=$1
    shift
    [ "$argument" = -fsanitize=thread ] || set -- "$@" "$argument"
    count=$((count - 1))
done
exec cc -Wl,--whole-archive "$WHARF_TSAN_RUNTIME" -Wl,--no-whole-archive "$@" \
    -lstdc++ -lpthread -ldl -lrt -lm -lc

/* Stands in for a system library that Wine 8 lacks, so that Rust programs start.
 *
 * Rust's standard library seeds its hash maps through ProcessPrng. Without this
 * library a program ends at once with exit code 53 and no output. It is built
 * and used by the wine leg of xtask only and is part of no release.
 */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID data, ULONG length);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE data, SIZE_T length)
{
    const SIZE_T part_max = 1 << 20;
    while (length > 0) {
        ULONG part = (ULONG)(length < part_max ? length : part_max);
        if (!SystemFunction036(data, part))
            return FALSE;
        data += part;
        length -= part;
    }
    return TRUE;
}

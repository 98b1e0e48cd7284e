/* A console for tests: starts a program and sends it the events that Windows sends.
 *
 * Wine tells no program that its console closes, that the system shuts down, or that a user logs off.
 * Windows tells of each on a thread that it starts in the program at CtrlRoutine, which calls the
 * handlers; this program starts the same thread. After closing and shutdown it ends the program as soon
 * as its handler has returned, as Windows does: that tells a handler that waits from one that does
 * not. Windows also ends a program whose handler takes longer than 5 seconds. Here the test
 * judges how long it took, because a slow machine is no fault.
 *
 *     console.exe PROGRAM [ARGUMENT...]
 *
 * Each line of standard input is an event by its number: 0 Ctrl-C, 1 Ctrl-Break, 2 close, 5 logoff,
 * 6 shutdown. What became of it is told on standard error: "event 2: ended" or "event 2: returned
 * after 4500 ms". The line "members" asks how many processes have the program's console, besides this
 * one. The exit code is the program's.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

/* What CtrlRoutine returns to its thread. */
#define ROUTINE_RETURNED 1
#define MEMBERS_MAX 64
/* No handler takes as long, on the slowest machine. */
#define HANGS_AFTER_MS 120000

static void fail(const char *what)
{
    fprintf(stderr, "console: %s: error %lu\n", what, GetLastError());
    exit(125);
}

/* The command line without the name of this program. */
static char *rest_of_command_line(void)
{
    char *rest = GetCommandLineA();
    char end = *rest == '"' ? *rest++ : ' ';
    while (*rest && *rest != end)
        rest++;
    while (*rest == '"' || *rest == ' ')
        rest++;
    return rest;
}

/* Processes on the console, besides this one for as long as it looks. */
static DWORD members(DWORD program)
{
    DWORD members[MEMBERS_MAX], count;
    FreeConsole();
    for (int tries = 100; !AttachConsole(program); tries--) {
        if (!tries)
            fail("attach to the console");
        Sleep(50);
    }
    count = GetConsoleProcessList(members, MEMBERS_MAX);
    FreeConsole();
    return count - 1;
}

static void send_event(const PROCESS_INFORMATION *program, DWORD event, LPTHREAD_START_ROUTINE routine)
{
    DWORD began = GetTickCount(), code = 0;
    HANDLE thread = CreateRemoteThread(program->hProcess, NULL, 0, routine, (void *)(ULONG_PTR)event, 0, NULL);
    if (!thread)
        fail("start a thread in the program");
    if (WaitForSingleObject(thread, HANGS_AFTER_MS) != WAIT_OBJECT_0)
        fail("the handler hangs");
    GetExitCodeThread(thread, &code);
    CloseHandle(thread);
    /* A thread that ends with its process has the exit code of that. */
    if (code != ROUTINE_RETURNED) {
        WaitForSingleObject(program->hProcess, INFINITE);
        fprintf(stderr, "event %lu: ended\n", event);
        return;
    }
    DWORD took = GetTickCount() - began;
    if (event == CTRL_CLOSE_EVENT || event == CTRL_SHUTDOWN_EVENT)
        TerminateProcess(program->hProcess, STATUS_CONTROL_C_EXIT);
    fprintf(stderr, "event %lu: returned after %lu ms\n", event, took);
}

int main(void)
{
    SECURITY_ATTRIBUTES inherited = {sizeof inherited, NULL, TRUE};
    STARTUPINFOA start = {.cb = sizeof start, .dwFlags = STARTF_USESTDHANDLES};
    start.hStdInput = CreateFileA("NUL", GENERIC_READ, 0, &inherited, OPEN_EXISTING, 0, NULL);
    start.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
    start.hStdError = GetStdHandle(STD_ERROR_HANDLE);
    PROCESS_INFORMATION program;
    /* A console of its own, without a window: there may be no display to show one on. */
    if (!CreateProcessA(NULL, rest_of_command_line(), NULL, NULL, TRUE, CREATE_NO_WINDOW, NULL, NULL,
                        &start, &program))
        fail("start the program");
    /* Whoever reads what the program says is to read its end. */
    CloseHandle(start.hStdOutput);

    HMODULE library = GetModuleHandleA("kernelbase.dll");
    LPTHREAD_START_ROUTINE routine = (LPTHREAD_START_ROUTINE)(void *)GetProcAddress(library, "CtrlRoutine");
    if (!routine)
        fail("find CtrlRoutine");

    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        if (*line == 'm')
            fprintf(stderr, "members: %lu\n", members(program.dwProcessId));
        else
            send_event(&program, strtoul(line, NULL, 10), routine);
        fflush(stderr);
    }
    DWORD code;
    WaitForSingleObject(program.hProcess, INFINITE);
    GetExitCodeProcess(program.hProcess, &code);
    return code;
}

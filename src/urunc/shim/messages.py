"""The messages that containerd and the shim exchange, as tables for `wire`.

Written down from containerd's .proto files (api/runtime/task/v2, api/events, api/types, ..), ttrpc's and
containerd/cgroups'; where those are installed, tests/shim/test_messages.py compares field by field. Names are
the full names of the messages, which is what an Any carries as its type. Only what a shim reads or writes is here.
"""

from __future__ import annotations

import time

from .wire import Table, WireError, decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .wire import Values

OCI_SPEC = "types.containerd.io/opencontainers/runtime-spec/1/"
"""What an Any's type starts with where its value is JSON of the OCI specification: Process, LinuxResources, .."""
FEATURES = OCI_SPEC + "features/Features"

# --- google.protobuf, google.rpc
EMPTY = Table("google.protobuf.Empty")
ANY = Table("google.protobuf.Any", (1, "type_url", "string"), (2, "value", "bytes"))
TIMESTAMP = Table("google.protobuf.Timestamp", (1, "seconds", "int64"), (2, "nanos", "int32"))
STATUS = Table(
    "google.rpc.Status", (1, "code", "int32"), (2, "message", "string"), (3, "details", "message", "repeated", ANY)
)

# --- ttrpc
KEY_VALUE = Table("ttrpc.KeyValue", (1, "key", "string"), (2, "value", "string"))
REQUEST = Table(
    "ttrpc.Request",
    (1, "service", "string"),
    (2, "method", "string"),
    (3, "payload", "bytes"),
    (4, "timeout_nano", "int64"),
    (5, "metadata", "message", "repeated", KEY_VALUE),
)
RESPONSE = Table("ttrpc.Response", (1, "status", "message", STATUS), (2, "payload", "bytes"))

# --- containerd.types, containerd.v1.types
MOUNT = Table(
    "containerd.types.Mount",
    (1, "type", "string"),
    (2, "source", "string"),
    (3, "target", "string"),
    (4, "options", "string", "repeated"),
)
PROCESS_INFO = Table("containerd.v1.types.ProcessInfo", (1, "pid", "uint32"), (2, "info", "message", ANY))
UNKNOWN, CREATED, RUNNING, STOPPED, PAUSED = range(5)
"""containerd.v1.types.Status."""

# --- containerd.task.v2: requests and responses
CREATE_REQUEST = Table(
    "containerd.task.v2.CreateTaskRequest",
    (1, "id", "string"),
    (2, "bundle", "string"),
    (3, "rootfs", "message", "repeated", MOUNT),
    (4, "terminal", "bool"),
    (5, "stdin", "string"),
    (6, "stdout", "string"),
    (7, "stderr", "string"),
    (8, "checkpoint", "string"),
    (9, "parent_checkpoint", "string"),
    (10, "options", "message", ANY),
)
CREATE_RESPONSE = Table("containerd.task.v2.CreateTaskResponse", (1, "pid", "uint32"))
DELETE_REQUEST = Table("containerd.task.v2.DeleteRequest", (1, "id", "string"), (2, "exec_id", "string"))
DELETE_RESPONSE = Table(
    "containerd.task.v2.DeleteResponse",
    (1, "pid", "uint32"),
    (2, "exit_status", "uint32"),
    (3, "exited_at", "message", TIMESTAMP),
)
EXEC_REQUEST = Table(
    "containerd.task.v2.ExecProcessRequest",
    (1, "id", "string"),
    (2, "exec_id", "string"),
    (3, "terminal", "bool"),
    (4, "stdin", "string"),
    (5, "stdout", "string"),
    (6, "stderr", "string"),
    (7, "spec", "message", ANY),
)
RESIZE_REQUEST = Table(
    "containerd.task.v2.ResizePtyRequest",
    (1, "id", "string"),
    (2, "exec_id", "string"),
    (3, "width", "uint32"),
    (4, "height", "uint32"),
)
STATE_REQUEST = Table("containerd.task.v2.StateRequest", (1, "id", "string"), (2, "exec_id", "string"))
STATE_RESPONSE = Table(
    "containerd.task.v2.StateResponse",
    (1, "id", "string"),
    (2, "bundle", "string"),
    (3, "pid", "uint32"),
    (4, "status", "enum"),
    (5, "stdin", "string"),
    (6, "stdout", "string"),
    (7, "stderr", "string"),
    (8, "terminal", "bool"),
    (9, "exit_status", "uint32"),
    (10, "exited_at", "message", TIMESTAMP),
    (11, "exec_id", "string"),
)
KILL_REQUEST = Table(
    "containerd.task.v2.KillRequest",
    (1, "id", "string"),
    (2, "exec_id", "string"),
    (3, "signal", "uint32"),
    (4, "all", "bool"),
)
CLOSE_IO_REQUEST = Table(
    "containerd.task.v2.CloseIORequest", (1, "id", "string"), (2, "exec_id", "string"), (3, "stdin", "bool")
)
PIDS_REQUEST = Table("containerd.task.v2.PidsRequest", (1, "id", "string"))
PIDS_RESPONSE = Table("containerd.task.v2.PidsResponse", (1, "processes", "message", "repeated", PROCESS_INFO))
CHECKPOINT_REQUEST = Table(
    "containerd.task.v2.CheckpointTaskRequest",
    (1, "id", "string"),
    (2, "path", "string"),
    (3, "options", "message", ANY),
)
UPDATE_REQUEST = Table(
    "containerd.task.v2.UpdateTaskRequest",
    (1, "id", "string"),
    (2, "resources", "message", ANY),
    (3, "annotations", "map"),
)
START_REQUEST = Table("containerd.task.v2.StartRequest", (1, "id", "string"), (2, "exec_id", "string"))
START_RESPONSE = Table("containerd.task.v2.StartResponse", (1, "pid", "uint32"))
WAIT_REQUEST = Table("containerd.task.v2.WaitRequest", (1, "id", "string"), (2, "exec_id", "string"))
WAIT_RESPONSE = Table(
    "containerd.task.v2.WaitResponse", (1, "exit_status", "uint32"), (2, "exited_at", "message", TIMESTAMP)
)
STATS_REQUEST = Table("containerd.task.v2.StatsRequest", (1, "id", "string"))
STATS_RESPONSE = Table("containerd.task.v2.StatsResponse", (1, "stats", "message", ANY))
CONNECT_REQUEST = Table("containerd.task.v2.ConnectRequest", (1, "id", "string"))
CONNECT_RESPONSE = Table(
    "containerd.task.v2.ConnectResponse", (1, "shim_pid", "uint32"), (2, "task_pid", "uint32"), (3, "version", "string")
)
SHUTDOWN_REQUEST = Table("containerd.task.v2.ShutdownRequest", (1, "id", "string"), (2, "now", "bool"))
PAUSE_REQUEST = Table("containerd.task.v2.PauseRequest", (1, "id", "string"))
RESUME_REQUEST = Table("containerd.task.v2.ResumeRequest", (1, "id", "string"))

TASK_SERVICE = "containerd.task.v2.Task"
TASK_METHODS: dict[str, tuple[Table, Table]] = {
    "State": (STATE_REQUEST, STATE_RESPONSE),
    "Create": (CREATE_REQUEST, CREATE_RESPONSE),
    "Start": (START_REQUEST, START_RESPONSE),
    "Delete": (DELETE_REQUEST, DELETE_RESPONSE),
    "Pids": (PIDS_REQUEST, PIDS_RESPONSE),
    "Pause": (PAUSE_REQUEST, EMPTY),
    "Resume": (RESUME_REQUEST, EMPTY),
    "Checkpoint": (CHECKPOINT_REQUEST, EMPTY),
    "Kill": (KILL_REQUEST, EMPTY),
    "Exec": (EXEC_REQUEST, EMPTY),
    "ResizePty": (RESIZE_REQUEST, EMPTY),
    "CloseIO": (CLOSE_IO_REQUEST, EMPTY),
    "Update": (UPDATE_REQUEST, EMPTY),
    "Wait": (WAIT_REQUEST, WAIT_RESPONSE),
    "Stats": (STATS_REQUEST, STATS_RESPONSE),
    "Connect": (CONNECT_REQUEST, CONNECT_RESPONSE),
    "Shutdown": (SHUTDOWN_REQUEST, EMPTY),
}
"""Every method of the service: what it takes and what it answers."""

# --- containerd.events
TASK_IO = Table(
    "containerd.events.TaskIO",
    (1, "stdin", "string"),
    (2, "stdout", "string"),
    (3, "stderr", "string"),
    (4, "terminal", "bool"),
)
TASK_CREATE = Table(
    "containerd.events.TaskCreate",
    (1, "container_id", "string"),
    (2, "bundle", "string"),
    (3, "rootfs", "message", "repeated", MOUNT),
    (4, "io", "message", TASK_IO),
    (5, "checkpoint", "string"),
    (6, "pid", "uint32"),
)
TASK_START = Table("containerd.events.TaskStart", (1, "container_id", "string"), (2, "pid", "uint32"))
TASK_EXIT = Table(
    "containerd.events.TaskExit",
    (1, "container_id", "string"),
    (2, "id", "string"),
    (3, "pid", "uint32"),
    (4, "exit_status", "uint32"),
    (5, "exited_at", "message", TIMESTAMP),
)
TASK_DELETE = Table(
    "containerd.events.TaskDelete",
    (1, "container_id", "string"),
    (2, "pid", "uint32"),
    (3, "exit_status", "uint32"),
    (4, "exited_at", "message", TIMESTAMP),
    (5, "id", "string"),
)
TASK_OOM = Table("containerd.events.TaskOOM", (1, "container_id", "string"))
TASK_PAUSED = Table("containerd.events.TaskPaused", (1, "container_id", "string"))
TASK_RESUMED = Table("containerd.events.TaskResumed", (1, "container_id", "string"))
TASK_EXEC_ADDED = Table("containerd.events.TaskExecAdded", (1, "container_id", "string"), (2, "exec_id", "string"))
TASK_EXEC_STARTED = Table(
    "containerd.events.TaskExecStarted", (1, "container_id", "string"), (2, "exec_id", "string"), (3, "pid", "uint32")
)
TOPICS: dict[str, Table] = {
    "/tasks/create": TASK_CREATE,
    "/tasks/start": TASK_START,
    "/tasks/exit": TASK_EXIT,
    "/tasks/delete": TASK_DELETE,
    "/tasks/oom": TASK_OOM,
    "/tasks/paused": TASK_PAUSED,
    "/tasks/resumed": TASK_RESUMED,
    "/tasks/exec-added": TASK_EXEC_ADDED,
    "/tasks/exec-started": TASK_EXEC_STARTED,
}

EVENTS_SERVICE = "containerd.services.events.ttrpc.v1.Events"
ENVELOPE = Table(
    "containerd.types.Envelope",
    (1, "timestamp", "message", TIMESTAMP),
    (2, "namespace", "string"),
    (3, "topic", "string"),
    (4, "event", "message", ANY),
)
FORWARD_REQUEST = Table("containerd.services.events.ttrpc.v1.ForwardRequest", (1, "envelope", "message", ENVELOPE))

# --- options, and what `-info` and `start` read and answer
RUNC_OPTIONS = Table(
    "containerd.runc.v1.Options",
    (1, "no_pivot_root", "bool"),
    (2, "no_new_keyring", "bool"),
    (3, "shim_cgroup", "string"),
    (4, "io_uid", "uint32"),
    (5, "io_gid", "uint32"),
    (6, "binary_name", "string"),
    (7, "root", "string"),
    (9, "systemd_cgroup", "bool"),
)
RUNTIME_OPTIONS = Table(
    "runtimeoptions.v1.Options", (1, "type_url", "string"), (2, "config_path", "string"), (3, "config_body", "bytes")
)
PROCESS_DETAILS = Table("containerd.runc.v1.ProcessDetails", (1, "exec_id", "string"))
RUNTIME_VERSION = Table("containerd.types.RuntimeVersion", (1, "version", "string"), (2, "revision", "string"))
RUNTIME_INFO = Table(
    "containerd.types.RuntimeInfo",
    (1, "name", "string"),
    (2, "version", "message", RUNTIME_VERSION),
    (3, "options", "message", ANY),
    (4, "features", "message", ANY),
    (5, "annotations", "map"),
)
EXTENSION = Table("containerd.runtime.bootstrap.v1.Extension", (1, "value", "message", ANY))
BOOTSTRAP_PARAMS = Table(
    "containerd.runtime.bootstrap.v1.BootstrapParams",
    (1, "instance_id", "string"),
    (2, "namespace", "string"),
    (3, "log_level", "enum"),
    (4, "containerd_version", "string"),
    (5, "containerd_ttrpc_address", "string"),
    (6, "containerd_grpc_address", "string"),
    (7, "containerd_binary", "string"),
    (8, "extensions", "message", "repeated", EXTENSION),
    (9, "socket_dir", "string"),
)


def pack(table: Table, values: Values) -> Values:
    """Return an Any that holds the message."""
    return {"type_url": table.name, "value": encode(table, values)}


def unpack(table: Table, packed: Values | None) -> Values | None:
    """Return the message of that table in an Any, None where the Any is absent or holds another type."""
    if packed is None or packed["type_url"].rpartition("/")[2] != table.name:
        return None
    return decode(table, packed["value"])


def timestamp(nanoseconds: int) -> Values:
    """Return a Timestamp of nanoseconds since the epoch."""
    seconds, nanos = divmod(nanoseconds, 1_000_000_000)
    return {"seconds": seconds, "nanos": nanos}


def now() -> Values:
    """Return the Timestamp of this moment."""
    return timestamp(time.time_ns())


def bootstrap(stdin: bytes) -> Values:
    """Return what containerd wrote to `start` as BootstrapParams.

    containerd 2.3 writes that message; before it an Any with the runtime's options, or nothing. The two have no
    marker, but an Any ends at field 2. What is neither is ignored: all that is needed is also in argv and environment.
    """
    params = _maybe(BOOTSTRAP_PARAMS, stdin)
    if params is not None and any(params[field.name] for field in BOOTSTRAP_PARAMS.fields if field.number > 2):
        return params
    params = BOOTSTRAP_PARAMS.new()
    options = _maybe(ANY, stdin)
    if options is not None and options["type_url"]:
        params["extensions"] = [{"value": options}]
    return params


def _maybe(table: Table, data: bytes) -> Values | None:
    try:
        return decode(table, data)
    except WireError:
        return None

"""How gunicorn serves the application. Values come from Settings and the CPU plan; each has its reason here."""

import atexit
import gc
import os
import resource
import shutil
import signal
import tempfile

from app.errors import IndexProblem, KeysError, PlanError
from app.processes.device import Device
from app.processes.memory import limit_heaps
from app.processes.pidfile import publish
from app.processes.plan import check_memory, describe_plan, make_plan
from app.processes.readiness import Readiness
from app.processes.reload import Reloader, ReloadState, reload_workers
from app.search.library import Library
from app.settings import Settings, service_links
from app.telemetry import logs, metrics
from app.web.access import announce
from app.web.probes import keep_models_current_in_background, keep_watch_in_background, warm_up_in_background
from app.web.service import service_of

_settings = Settings.from_environment(os.environ)
_plan = make_plan(_settings)
_readiness = Readiness(_plan.workers)
_reloads = ReloadState()
_device = Device(os.environ, _settings) if _plan.has_device else None
_used_slots = set()
# Each connection is an open file. Shells allow few unless asked, and some are needed for other things.
_limits = resource.getrlimit(resource.RLIMIT_NOFILE)
_files = max(_limits[0], min(_limits[1], 16_384))

# Each worker builds its own application, named so that ps shows whose processes these are.
wsgi_app = "app:create_app()"
proc_name = "topthree"
# Loopback by default: a service without keys is open to anyone who can reach it.
bind = [f"{_settings.host}:{_settings.port}"]
# Metrics can have an address of their own, which app/web/observing.py recognises by its port.
bind += [_settings.metrics_address] if _settings.metrics_address else []

# Threads, since inference releases the GIL and photos are decoded in processes of their own, while one process keeps
# one model in memory; a worker of our own, in which slow clients wait without a thread.
worker_class = "app.server.worker.Worker"
workers = _plan.workers
threads = _plan.threads

# Never load the application in the master: a model that has run before the fork can hang its children.
preload_app = False

# For threaded workers this is a heartbeat, not a request limit: it finds a worker whose main loop has stopped.
timeout = 30
# What is in flight at SIGTERM is answered; the slowest photo takes far less.
graceful_timeout = 30
# Longer than the usual load balancer's pause between two requests on one connection, so that it closes first.
keepalive = 75

# The heartbeat file belongs in memory: on a container's disk it can block, and the root may be read-only.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None

# Nothing here uses gunicorn's control socket, and it would leave a file in the home folder.
control_socket_disable = True

# A connection that waits costs a worker little; beyond this number, idle and slow connections are ended first.
worker_connections = max(64, min(8_192, _files - 256))

# Request lines carry at most a few query parameters.
limit_request_line = 4094
limit_request_fields = 64

# The log goes to standard error, gunicorn's own lines in the form of ours. Requests are logged by the application:
# gunicorn's lines hold addresses of people and the names that they ask for.
logconfig_dict = logs.configuration(_settings)
accesslog = None
errorlog = "-"
loglevel = _settings.log_level


def on_starting(server):
    """Log the plan and which clients may call, prepare shared metrics, and have SIGHUP replace models, not workers.

    gunicorn prints a RuntimeError as one sentence.
    """
    logs.capture_stray_messages()
    if links := service_links(os.environ):
        server.log.warning(
            "Ignored: %s. Kubernetes sets these for a service of this name; enableServiceLinks: false in the pod's "
            "spec leaves them out.",
            ", ".join(links),
        )
    if server.cfg.is_ssl:
        raise RuntimeError("This service does not speak TLS; put a proxy in front.")
    server.found_by = None
    server.handle_hup = lambda: reload_workers(server, _reloads)
    server.handle_usr1 = lambda: _look_whether_to_drain(server)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_files, _limits[1]))
    if _settings.metrics_address:
        server.log.info("Metrics: http://%s/metrics, for anyone who can reach it.", _settings.metrics_address)
        _share_metrics()
    for line in describe_plan(_plan).splitlines():
        server.log.info("Plan: %s", line)
    try:
        check_memory(_plan)
        announce(_settings)
        if _settings.index:
            Library.open(_settings.index)
    except (IndexProblem, KeysError, PlanError) as error:
        raise RuntimeError(str(error)) from error
    if _device is not None:
        _keep_device(server, _device)


def _keep_device(server, device):
    """Start the device process before the workers, and look after it whenever a process has ended, and each second."""
    reap, murder = server.reap_workers, server.murder_workers
    server.reap_workers = lambda: (device.look(), reap())  # first, since gunicorn waits for any process that has ended
    server.murder_workers = lambda: (device.look(), murder())
    device.start()


def _share_metrics():
    """Keep the counts of all processes in a private folder in memory, which is removed when the master ends."""
    folder = tempfile.mkdtemp(prefix="topthree-metrics-", dir=worker_tmp_dir)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
    metrics.share("master")
    master = os.getpid()
    # Workers are forks that run this at their end too.
    atexit.register(lambda: os.getpid() == master and shutil.rmtree(folder, ignore_errors=True))


def _look_whether_to_drain(server):
    """Set whether the service is draining, as `topthree drain` has recorded."""
    _readiness.is_draining = draining = server.found_by is not None and server.found_by.is_draining
    server.log.info("Draining: not ready any more." if draining else "Ready, unless a model is missing.")


def when_ready(server):
    """Write the file by which `topthree drain` finds this service."""
    try:
        server.found_by = publish(os.environ, _settings.host, _settings.port)
    except OSError as error:
        server.found_by = None
        server.log.warning("'topthree drain' will not find this service: %s.", error)


def pre_fork(server, worker):
    """Give the worker a slot of its own among the readiness counters, without the counts of its predecessor."""
    taken = {other.slot for other in server.WORKERS.values()}
    worker.slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
    _readiness.forget(worker.slot)
    # While the worker starts, gunicorn would reset SIGHUP to its default, which ends the process; this keeps the
    # master's handler.
    worker.SIGNALS = [each for each in worker.SIGNALS if each != signal.SIGHUP]
    if worker.slot in _used_slots:
        metrics.count_restart()
    _used_slots.add(worker.slot)


def post_fork(server, worker):
    """Count under the worker's own name, and keep its memory small.

    Objects that were made before the fork are left out of garbage collection: it writes into every object that it
    inspects, and so would copy the memory that master and workers share.
    """
    if _settings.metrics_address:
        metrics.share(str(worker.slot))
    limit_heaps()
    gc.freeze()


def post_worker_init(worker):
    """Load the model after the fork, without waiting for a first request, and reload it when the master says so."""
    found = service_of(worker.wsgi)
    if _device is not None:
        found.classifier.connect(_device)

    def use(prepared):
        served, keys = prepared
        found.classifier.use(served)
        found.keys.use(keys)

    reloader = Reloader(lambda: (found.classifier.build(), found.keys.read()), use, _reloads, worker.slot)
    # A signal may interrupt any code, so the reload begins in the worker's loop.
    signal.signal(signal.SIGHUP, lambda *_: worker.calls.append(reloader.follow))
    signal.siginterrupt(signal.SIGHUP, False)
    worker.calls.append(reloader.follow)  # a reload may have begun before
    warm_up_in_background(worker.wsgi, _readiness, worker.slot)
    keep_watch_in_background(found.classifier, _readiness, worker.slot)
    keep_models_current_in_background(found.classifier)


def child_exit(server, worker):
    """Reset the readiness counters of a worker that has left, and remove its gauges."""
    _readiness.forget(worker.slot)
    if _settings.metrics_address:
        metrics.forget_process(str(worker.slot))


def on_exit(server):
    """End the device process, and remove the file by which `topthree drain` finds this service."""
    if _device is not None:
        _device.close()
    if server.found_by is not None:
        server.found_by.remove()

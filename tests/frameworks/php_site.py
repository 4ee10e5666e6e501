"""A PHP app on php-fpm behind nginx, as most of them run.

PHP's own server (`php -S`, `artisan serve`) ends a body by closing the connection. Nobody can tell
whether such a body is whole, so nothing of it would be stored.
"""

import os
import pathlib
import shutil
import subprocess

from harness.processes import Failed

PACKAGES = ["php-cli", "php-fpm", "nginx"]
NGINX = "/usr/sbin/nginx"
POOL = """
[global]
error_log = /dev/stderr
daemonize = no
[site]
listen = {socket}
pm = static
pm.max_children = 2
clear_env = no
catch_workers_output = yes
php_admin_value[auto_prepend_file] = {prepend}
php_admin_value[sendmail_path] = /bin/true
php_admin_value[display_errors] = 0
php_admin_value[log_errors] = 1
php_admin_value[opcache.validate_timestamps] = 1
{owner}
"""
CONF = """
{owner}
daemon off;
worker_processes 1;
error_log stderr;
pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{
    log_format site '$request_method $request_uri $status $http_cookie';
    access_log {folder}/access.log site;
    include /etc/nginx/mime.types;
    client_body_temp_path {folder}/nginx-body;
    fastcgi_temp_path {folder}/nginx-fastcgi;
    proxy_temp_path {folder}/nginx-proxy;
    uwsgi_temp_path {folder}/nginx-uwsgi;
    scgi_temp_path {folder}/nginx-scgi;
    server {{
        listen LISTEN;
        root {root};
        index index.php;
        location / {{ try_files $uri $uri/ /index.php$is_args$args; }}
        location ~ \\.php$ {{
            try_files $uri =404;
            include /etc/nginx/fastcgi_params;
            fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;
            fastcgi_pass unix:{socket};
        }}
    }}
}}
"""


def start(processes, folder, root, env, prepend="none"):
    """Starts php-fpm and nginx for the files below `root`; returns the port."""
    socket = folder / "fpm.sock"
    is_root = os.getuid() == 0
    pool = folder / "fpm.conf"
    pool.write_text(POOL.format(socket=socket, prepend=prepend,
                                owner="user = root\ngroup = root" if is_root else ""))
    command = [_fpm(), "--fpm-config", pool, "--nodaemonize"] + ["--allow-to-run-as-root"] * is_root
    processes.start("fpm", command, env, r"ready to handle connections")
    conf = CONF.format(folder=folder, root=root, socket=socket,
                       owner="user root;" if is_root else "")
    return processes.start_nginx(NGINX, conf, "")


def _fpm():
    """php-fpm has the version of PHP in its name."""
    found = sorted(pathlib.Path("/usr/sbin").glob("php-fpm[0-9]*"))
    if not found:
        raise Failed("there is no /usr/sbin/php-fpm*")
    return found[-1]


def php(env, *arguments):
    """Runs a script of the site to its end, and returns what it prints."""
    program = shutil.which("php")
    done = subprocess.run([program, *map(str, arguments)], env=env, capture_output=True,
                          text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise Failed(f"php {arguments}: exit code {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def version():
    return php(None, "-r", "echo PHP_VERSION;")

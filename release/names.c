/* Linked into static binaries of glibc by release/build.
 *
 * A static glibc resolves names as /etc/nsswitch.conf says, and loads a shared library for each
 * service there that it does not have itself (resolve, mymachines, mdns4_minimal, ...). Those of
 * another version of glibc can end the process. So the binary uses what it has: /etc/hosts, and the
 * name servers of /etc/resolv.conf. Both are what containers have anyway, and systemd-resolved
 * listens there too.
 */
#include <nss.h>

__attribute__((constructor)) static void resolve_names_without_shared_libraries(void)
{
    __nss_configure_lookup("hosts", "files dns");
    __nss_configure_lookup("passwd", "files");
    __nss_configure_lookup("group", "files");
}

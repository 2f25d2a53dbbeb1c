# The first process of the machine {{.Name}}: a file system of its own at the places where programs write, then its services.
set -eu
read -r _ || : # Standard input ends when the network is there.
mount --make-rprivate /
mount -t proc proc /proc
echo {{.Name}} >/proc/sys/kernel/hostname
mount --bind {{.Dir}} /mnt
mount --bind /mnt/{{.Name}}/var /var
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
# The kubelet sets these of the whole kernel unless they are as it wants (kubernetes pkg/kubelet/cm/container_manager_linux.go, setupKernelTunables):
# here it finds them so, and nothing is changed.
while read -r name value; do
	echo "$value" >"/run/${name##*/}"
	mount --bind "/run/${name##*/}" "/proc/sys/$name"
done <<-EOF
	vm/overcommit_memory 1
	vm/panic_on_oom 0
	kernel/panic 10
	kernel/panic_on_oops 1
	kernel/keys/root_maxkeys 1000000
	kernel/keys/root_maxbytes 25000000
EOF
# A user namespace may mount /proc only where all of another one can be seen (kernel fs/namespace.c, mount_too_revealing).
mkdir /run/proc
mount -t proc proc /run/proc
mount --make-rshared /
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
# The end of the process that holds the other end of this file is the machine's end.
[ -z "${LIFELINE-}" ] || (read -r _ <&"$LIFELINE" || kill -TERM 1) &
exec runsvdir -P /mnt/{{.Name}}/services

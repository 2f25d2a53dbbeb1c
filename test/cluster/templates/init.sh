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
mount --make-rshared /
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
exec runsvdir -P /mnt/{{.Name}}/services

// Package images keeps the container images of one errand: it pulls them from registries, loads them from archives, unpacks
// them, lists and removes them, and makes the root file systems of containers from them.
//
// It is containerd's libraries in-process: the content store holds blobs by digest, a bolt database holds the names and what
// refers to what, a snapshotter holds the unpacked layers, and containerd's collector removes what nothing refers to. Where
// to pull from and with which credentials is read from the files that podman, skopeo and CRI-O read too: registries.conf
// (go.podman.io/image/v5/pkg/sysregistriesv2), auth.json and credential helpers (.../pkg/docker/config), certs.d.
//
// Three promises hold it together:
//
//   - An image has a name only when it is whole: its content verified, unpacked and flushed to disk. Whatever a crash, a full
//     disk or a bad registry leaves behind has no name, hence is collected; what an interrupted pull has fetched, half an hour later.
//   - What a pull in progress or an existing container needs is never collected: the first holds a lease, the second is a root
//     of the collection (see rootfs.go).
//   - Making and removing a container's root touches no database and waits for no disk.
//
// It doesn't own: when to pull (imagePullPolicy is the node's), what runs in a container, mounting (the caller mounts what
// PrepareRootfs returns), and when to collect images that have a name (the kubelet's thresholds).
package images

package shimapi

// Launch says how the shim makes a container itself, without an OCI runtime. It is an OCI specification with everything
// looked up and translated that can be on errand's side (package native): what is left is system calls. A shim that can't do
// it (an old one, an old kernel) runs the bundle by its Handler instead.
type Launch struct {
	// Root is the container's root file system: a directory on the host. ReadonlyRoot makes it read-only in the end.
	Root         string `json:"root"`
	ReadonlyRoot bool   `json:"readonlyRoot,omitempty"`
	// Join are the namespaces that the container joins, Unshare (CLONE_NEW* flags) those made for it; others are the host's, but for a
	// new mount and PID namespace, and with CgroupNamespace a cgroup one.
	Join            []Namespace `json:"join,omitempty"`
	Unshare         int         `json:"unshare,omitempty"`
	CgroupNamespace bool        `json:"cgroupNamespace,omitempty"`
	// Mounts in their order.
	Mounts []Mount `json:"mounts"`
	// Devices are made in the container's /dev beside the usual ones; not where /dev isn't one of the Mounts.
	Devices []Device `json:"devices,omitempty"`
	// Masked and Readonly are paths in the container that are hidden, or made read-only, where they exist.
	Masked   []string `json:"masked,omitempty"`
	Readonly []string `json:"readonly,omitempty"`
	// Seccomp is the filter of all its processes, an array of struct sock_filter in the machine's byte order, with its
	// SECCOMP_FILTER_FLAG_*.
	Seccomp      []byte `json:"seccomp,omitempty"`
	SeccompFlags uint   `json:"seccompFlags,omitempty"`
	// Process is the first one.
	Process Process `json:"process"`
}

// Namespace is one to join, by the path of its file.
type Namespace struct {
	Type int    `json:"type"` // a CLONE_NEW* flag
	Path string `json:"path"`
}

// Mount is one mount of a container.
type Mount struct {
	// Destination is where, an absolute path in the container. Links on the way are followed inside the container. What is missing is made.
	Destination string `json:"destination"`
	// Bind is a path on the host to mount, with Recursive and all that is mounted below it.
	Bind      string `json:"bind,omitempty"`
	Recursive bool   `json:"recursive,omitempty"`
	// Type is a file system to mount otherwise, with its own Options, "key=value" or "flag".
	// "cgroup" shows the container its own cgroups.
	Type    string   `json:"type,omitempty"`
	Source  string   `json:"source,omitempty"`
	Options []string `json:"options,omitempty"`
	// Set and Clear are MOUNT_ATTR_* flags of the mount, SetAll those of it and all that is mounted below it.
	Set    uint64 `json:"set,omitempty"`
	Clear  uint64 `json:"clear,omitempty"`
	SetAll uint64 `json:"setAll,omitempty"`
	// Propagation is MS_PRIVATE, MS_SLAVE or MS_SHARED, of it and all that is mounted below it.
	Propagation uint64 `json:"propagation,omitempty"`
}

// Device is a device node.
type Device struct {
	Path string `json:"path"`
	Mode uint32 `json:"mode"` // with S_IFCHR, S_IFBLK or S_IFIFO
	Dev  uint64 `json:"dev"`  // as mknod takes it
	UID  uint32 `json:"uid,omitempty"`
	GID  uint32 `json:"gid,omitempty"`
}

// Process is what becomes of a new process.
type Process struct {
	Args   []string `json:"args"`
	Env    []string `json:"env"`
	Cwd    string   `json:"cwd"`
	UID    uint32   `json:"uid,omitempty"`
	GID    uint32   `json:"gid,omitempty"`
	Groups []uint32 `json:"groups,omitempty"`
	Umask  uint32   `json:"umask"`

	// Capabilities as bits.
	Bounding    uint64 `json:"bounding"`
	Effective   uint64 `json:"effective"`
	Permitted   uint64 `json:"permitted"`
	Inheritable uint64 `json:"inheritable"`
	Ambient     uint64 `json:"ambient,omitempty"`

	NoNewPrivs bool     `json:"noNewPrivs,omitempty"`
	Rlimits    []Rlimit `json:"rlimits,omitempty"`
	// OOMScoreAdj, nil for what the shim itself was started with.
	OOMScoreAdj *int `json:"oomScoreAdj,omitempty"`
	// AppArmor is a profile's name.
	AppArmor string `json:"appArmor,omitempty"`
	// Rows and Columns of its terminal, 0 for the kernel's default.
	Rows    uint16 `json:"rows,omitempty"`
	Columns uint16 `json:"columns,omitempty"`
}

// Rlimit is a limit as setrlimit takes it.
type Rlimit struct {
	Resource int    `json:"resource"`
	Soft     uint64 `json:"soft"`
	Hard     uint64 `json:"hard"`
}

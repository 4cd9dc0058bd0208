package main

import (
	"errors"
	"os"
	"strconv"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dummyInterfaces says what is missing for network interfaces of type dummy.
var dummyInterfaces = sync.OnceValue(func() string {
	attributes := netlink.NewLinkAttrs()
	attributes.Name = "errand-cf" + strconv.Itoa(os.Getpid()%10000)
	link := &netlink.Dummy{LinkAttrs: attributes}
	if err := netlink.LinkAdd(link); errors.Is(err, unix.EOPNOTSUPP) {
		return "the kernel has no network interfaces of type dummy (CONFIG_DUMMY)"
	}
	_ = netlink.LinkDel(link) // nothing else is to be learnt here
	return ""
})

// negativeOOMScoreAdj says what is missing for processes that the kernel is to spare when memory runs out.
var negativeOOMScoreAdj = sync.OnceValue(func() string {
	const path = "/proc/self/oom_score_adj"
	was, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte("-997"), 0)
	}
	if err != nil {
		return "nobody may lower an oom_score_adj here (CAP_SYS_RESOURCE)"
	}
	_ = os.WriteFile(path, was, 0) // what may be lowered may be raised
	return ""
})

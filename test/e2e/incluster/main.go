// Command incluster is a client of the API as programs in pods are, for e2e
// tests: it knows what the kubelet gives a container, and nothing else.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

const namespace = metav1.NamespaceDefault

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("incluster", flag.ContinueOnError)
	host := flags.String("host", "", "the API's URL in place of what the environment says")
	anonymous := flags.Bool("anonymous", false, "without the service account's token")
	if err := flags.Parse(args); err != nil {
		return err
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	if *host != "" {
		config.Host = *host
	}
	if *anonymous {
		config = rest.AnonymousClientConfig(config)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	switch flags.Arg(0) {
	case "list":
		return list(ctx, client)
	case "greet":
		return greet(ctx, client)
	case "lead":
		return lead(ctx, client)
	}
	return errors.New("want list, greet or lead")
}

// list prints the names of the pods that there are.
func list(ctx context.Context, client kubernetes.Interface) error {
	pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for i := range pods.Items {
		fmt.Println(pods.Items[i].Name)
	}
	return nil
}

// greet labels each ConfigMap that it sees by a watch.
func greet(ctx context.Context, client kubernetes.Interface) error {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace))
	_, err := factory.Core().V1().ConfigMaps().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			name := obj.(*v1.ConfigMap).Name
			_, err := client.CoreV1().ConfigMaps(namespace).Patch(ctx, name, types.MergePatchType,
				[]byte(`{"metadata":{"labels":{"greeted":"yes"}}}`), metav1.PatchOptions{})
			fmt.Println(name, err)
		},
	})
	if err != nil {
		return err
	}
	factory.StartWithContext(ctx)
	<-ctx.Done()
	return nil
}

// lead takes part in an election until it is told to end, and gives the lead
// back then.
func lead(ctx context.Context, client kubernetes.Interface) error {
	self, err := os.Hostname()
	if err != nil {
		return err
	}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: namespace, Name: "lead"},
			Client:     client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: self},
		},
		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: time.Second,
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { fmt.Println(self, "leads") },
			OnStoppedLeading: func() { fmt.Println(self, "has ended") },
		},
	})
	if err != nil {
		return err
	}
	elector.Run(ctx)
	return nil
}

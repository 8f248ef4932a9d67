"""`Cluster` by the path that programs outside this repository import: `faust_exactly_once.Cluster`."""

from faust_exactly_once import Cluster as Cluster

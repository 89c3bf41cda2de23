"""From a node that was seen to the cluster.yaml that the planner reads."""

from __future__ import annotations

from planner.probe.device import join_device
from planner.probe.links import link_classes
from planner.probe.sentence import with_summary
from profiles.cluster import ClusterSpec
from profiles.topology import ClusterTopology, NodeTopology


def cluster_of(node: NodeTopology, *, device: str | None = None) -> ClusterSpec:
    """Return one node with accelerators as a cluster. `device` names the preset of its devices.

    Raises:
        FieldError: when there is no preset of that name.
    """
    joined = join_device(node, preset=device)
    node = node.model_copy(update={"problems": (*node.problems, *joined.problems)})
    complaints = [f"GPU{d.index}: {text}" for d in node.devices for text in d.complaints]
    notes = [f"{p.message}" + (f" → {p.remedy}" if p.remedy else "") for p in node.problems]
    if node.device_order:
        order = ",".join(str(i) for i in node.device_order)
        notes.append(
            f"joined devices are not neighbours in the driver's order; use CUDA_VISIBLE_DEVICES={order}"
        )
    # What stands for devices that nothing names tells the rate of their links too.
    told = [d if d.name else d.model_copy(update={"name": joined.spec.name}) for d in node.devices]
    cluster = ClusterSpec(
        name=node.host or "imported",
        device=joined.spec,
        devices_per_node=len(node.devices),
        links=link_classes(node.model_copy(update={"devices": tuple(told)})),
        cores_per_node=node.cores,
        origins={
            "device": joined.origin,
            "devices_per_node": node.origins.get("devices", "assumed"),
            "links": f"{node.origins.get('matrix', 'assumed')}; rates nominal",
            "network": node.origins.get("nics", "assumed") if node.nics else "assumed",
        },
        notes=(*notes, *complaints, *node.notes),
        topology=ClusterTopology(node=node, hosts=(node.host,) if node.host else ()),
    )
    return with_summary(cluster)

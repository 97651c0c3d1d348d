#!/usr/bin/env python3
"""The example for Kubernetes: whether it is what it says, and fits together.

    kubernetes_test.py CACHETD EXAMPLE
"""
import os
import subprocess
import sys
import tempfile
import unittest

import yaml

CACHETD, EXAMPLE = sys.argv[1:3]


class KubernetesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with open(EXAMPLE, encoding="utf-8") as f:
            objects = list(yaml.safe_load_all(f))
        cls.objects = {o["kind"]: o for o in objects}
        cls.pods = [cls.objects["DaemonSet"]["spec"]["template"]["spec"],
                    cls.objects["Pod"]["spec"]]
        cls.daemon, cls.reader = cls.pods
        cls.containers = [c for p in cls.pods
                          for c in p.get("initContainers", []) + p["containers"]]

    def test_each_object_has_what_all_need(self):
        self.assertEqual(set(self.objects), {"ConfigMap", "DaemonSet", "Pod"})
        for o in self.objects.values():
            self.assertEqual({"apiVersion", "kind", "metadata"} - set(o), set())
            self.assertTrue(o["metadata"]["name"])

    def test_the_selector_finds_the_template(self):
        spec = self.objects["DaemonSet"]["spec"]
        self.assertEqual(spec["selector"]["matchLabels"],
                         spec["template"]["metadata"]["labels"])

    def test_no_namespace_of_the_host_is_shared(self):
        for pod in self.pods:
            self.assertEqual(
                set(pod) & {"hostIPC", "hostPID", "hostNetwork"}, set())

    def test_nothing_is_mounted_at_dev_shm(self):
        for container in self.containers:
            for mount in container["volumeMounts"]:
                self.assertNotIn("/dev", mount["mountPath"])

    def test_no_container_has_more_rights_than_it_needs(self):
        for container in self.containers:
            context = container["securityContext"]
            self.assertFalse(context["allowPrivilegeEscalation"])
            self.assertTrue(context["readOnlyRootFilesystem"])
            self.assertEqual(context["capabilities"]["drop"], ["ALL"])
        for pod in self.pods:
            self.assertTrue(pod["securityContext"]["runAsNonRoot"])

    def test_each_mount_has_a_volume(self):
        for pod in self.pods:
            volumes = {v["name"] for v in pod["volumes"]}
            for container in pod.get("initContainers", []) + pod["containers"]:
                mounts = {m["name"] for m in container["volumeMounts"]}
                self.assertEqual(mounts - volumes, set())

    def test_the_reader_sees_the_directory_of_the_socket_and_has_its_group(self):
        where = [next(v["hostPath"]["path"] for v in pod["volumes"]
                      if v["name"] == "socket") for pod in self.pods]
        self.assertEqual(where[0], where[1])
        group = self.daemon["securityContext"]["runAsGroup"]
        self.assertIn(group,
                      self.reader["securityContext"]["supplementalGroups"])
        self.assertNotEqual(self.daemon["securityContext"]["runAsUser"],
                            self.reader["securityContext"]["runAsUser"])

    def test_the_daemon_has_a_limit_of_memory_and_all_of_it(self):
        resources = self.daemon["containers"][0]["resources"]
        self.assertEqual(resources["requests"]["memory"],
                         resources["limits"]["memory"])

    # A volume of a ConfigMap is made of symbolic links.
    def test_the_configuration_is_right(self):
        data = self.objects["ConfigMap"]["data"]
        with tempfile.TemporaryDirectory() as root:
            os.mkdir(os.path.join(root, "..data"))
            for name, text in data.items():
                with open(os.path.join(root, "..data", name), "w",
                          encoding="utf-8") as f:
                    f.write(text)
                os.symlink(os.path.join("..data", name),
                           os.path.join(root, name))
            checked = subprocess.run(
                [CACHETD, "--check-config", "--config",
                 os.path.join(root, "cachetd.conf")], check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                universal_newlines=True)
        self.assertEqual(checked.returncode, 0, checked.stdout)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])

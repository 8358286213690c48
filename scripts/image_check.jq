# Turn what `runc spec` writes into a container that runs an image ($images[0] is its configuration) as strictly as
# `--read-only --tmpfs /tmp --cap-drop ALL --network none` would.
$images[0] as $image
| ($image.User | split(":") | map(tonumber)) as [$uid, $gid]
| .root = {path: $root, readonly: true}
| .process += {
    terminal: false, user: {uid: $uid, gid: $gid}, capabilities: {},
    args: $image.Cmd, env: $image.Env, cwd: $image.WorkingDir
  }
| .mounts += [{
    destination: "/tmp", type: "tmpfs", source: "tmpfs", options: ["nosuid", "nodev", "noexec", "size=64m", "mode=1777"]
  }]

class Sidecache < Formula
  desc "{{summary}}"
{{homepage}}  version "{{version}}"
  license any_of: ["MIT", "Apache-2.0"]

{{platforms}}
  def install
    bin.install "sidecache"
    man1.install Dir["man/man1/*"]
    bash_completion.install "completions/sidecache.bash" => "sidecache"
    zsh_completion.install "completions/_sidecache"
    fish_completion.install "completions/sidecache.fish"
    prefix.install "LICENSE-MIT", "LICENSE-APACHE", "THIRD-PARTY.txt"
    pkgshare.install "examples"

    # A file that is there stays as it is.
    system bin/"sidecache", "init", "--upstream", "http://127.0.0.1:8000", "--output", "proxy.toml"
    (etc/"sidecache").install "proxy.toml"
  end

  def caveats
    <<~TEXT
      Name your app in #{etc}/sidecache/proxy.toml, then start it:
        brew services start sidecache
      It serves at http://127.0.0.1:8080/, and shows what it does at http://127.0.0.1:9090/.
    TEXT
  end

  service do
    run [opt_bin/"sidecache", "serve", "--config", etc/"sidecache/proxy.toml"]
    keep_alive true
    log_path var/"log/sidecache.log"
    error_log_path var/"log/sidecache.log"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/sidecache --version")
    system bin/"sidecache", "init", "--upstream", "http://127.0.0.1:8000"
    system bin/"sidecache", "check", "--deny-warnings"
    (testpath/"wrong.toml").write "nonsense = 1\n"
    assert_match "nonsense", shell_output("#{bin}/sidecache check wrong.toml 2>&1", 64)
  end
end

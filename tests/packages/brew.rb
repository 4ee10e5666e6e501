# Installs a formula below a prefix as Homebrew does, as far as the formula of Sidecache goes, and runs
# its test. A word of Homebrew's that is not here, or not in its place, is an error.
#
#   ruby tests/packages/brew.rb FORMULA PREFIX
#
# Prints the command of the service. URLs have to be those of files.

require "digest"
require "fileutils"
require "open3"
require "pathname"
require "rbconfig"
require "tmpdir"
require "uri"

SYSTEM = RbConfig::CONFIG["host_os"].include?("darwin") ? :macos : :linux
PROCESSOR = RbConfig::CONFIG["host_cpu"].match?(/arm|aarch64/) ? :arm : :intel

# A folder of the installation, with Homebrew's own `install`.
class Pathname
  def install(*sources)
    sources.flatten.each do |source|
      (source.is_a?(Hash) ? source : { source => File.basename(source) }).each do |from, name|
        raise "#{from} is not in the archive" unless File.exist?(from)

        mkpath
        FileUtils.mv(from, join(name))
      end
    end
  end
end

# Where Homebrew keeps what is under `etc`: a file that is there stays.
class Configuration < Pathname
  def /(other) = Configuration.new(join(other))

  def install(source)
    mkpath
    there = join(File.basename(source))
    FileUtils.mv(source, there.exist? ? "#{there}.default" : there)
  end
end

class Service
  attr_reader :command

  def run(command) = @command = command.map(&:to_s)
  def keep_alive(value) = value
  def log_path(path) = path
  def error_log_path(path) = path
end

class Formula
  PREFIX = Pathname(ARGV.fetch(1)).expand_path

  class << self
    attr_reader :facts, :on_test, :on_service

    def inherited(formula)
      super
      formula.instance_variable_set(:@facts, {})
      @@formula = formula
    end

    def formula = @@formula

    %i[desc homepage version license url sha256].each do |name|
      define_method(name) { |value| @facts.store(name, value) }
    end

    %i[linux macos].each { |name| define_method(:"on_#{name}") { |&block| block.call if name == SYSTEM } }
    %i[intel arm].each { |name| define_method(:"on_#{name}") { |&block| block.call if name == PROCESSOR } }

    def test(&block) = @on_test = block
    def service(&block) = @on_service = block
  end

  def version = self.class.facts.fetch(:version)
  def prefix = PREFIX/"Cellar/sidecache"/version
  def bin = prefix/"bin"
  def man1 = prefix/"share/man/man1"
  def pkgshare = prefix/"share/sidecache"
  def bash_completion = prefix/"etc/bash_completion.d"
  def zsh_completion = prefix/"share/zsh/site-functions"
  def fish_completion = prefix/"share/fish/vendor_completions.d"
  def opt_bin = PREFIX/"opt/sidecache/bin"
  def etc = Configuration.new(PREFIX/"etc")
  def var = PREFIX/"var"
  def testpath = Pathname.pwd

  def system(*command)
    Kernel.system(*command.map(&:to_s), out: :err) || raise("#{command.join(" ")} failed")
  end

  def shell_output(command, expected = 0)
    output, status = Open3.capture2(command)
    raise "#{command} ended with #{status.exitstatus}, not #{expected}: #{output}" if status.exitstatus != expected

    output
  end

  def assert_match(wanted, text)
    raise "#{wanted} is not in: #{text}" unless text.match?(wanted)
  end
end

def unpack(facts)
  url = URI(facts.fetch(:url))
  raise "#{url} is no file" unless url.scheme == "file"

  archive = URI::DEFAULT_PARSER.unescape(url.path)
  found = Digest::SHA256.file(archive).hexdigest
  raise "SHA-256 mismatch: #{archive} has #{found}" unless found == facts.fetch(:sha256)

  system("tar", "-xzf", archive, "--strip-components=1") || raise("#{archive} cannot be unpacked")
end

load File.expand_path(ARGV.fetch(0))
formula = Formula.formula
facts = formula.facts
raise "desc is longer than 80 characters" if facts.fetch(:desc).length > 80
raise "no licence" unless facts.fetch(:license).fetch(:any_of).length == 2

installed = formula.new
Dir.mktmpdir { |folder| Dir.chdir(folder) { unpack(facts); installed.install } }
FileUtils.mkpath(Formula::PREFIX/"opt")
FileUtils.ln_sf(installed.prefix, Formula::PREFIX/"opt/sidecache")
Dir.mktmpdir { |folder| Dir.chdir(folder) { installed.instance_eval(&formula.on_test) } }
warn installed.caveats
service = Service.new
paths = %i[opt_bin etc var].to_h { |name| [name, installed.public_send(name)] }
paths.each { |name, path| service.define_singleton_method(name) { path } }
service.instance_eval(&formula.on_service)
puts service.command

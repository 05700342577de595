"""Every plot at 5, 20 and 100 layers, to be looked at: report/pictures.py."""

from report.pictures import main

if __name__ == "__main__":
    main()
